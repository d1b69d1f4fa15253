# lob-trace beside a running pipeline.
load helper
setup_file() { start_venue_of_file; }

start_pipeline() {
  use_venue
  start pipe bash -c "lob-connect binance BTCUSDT --url $WS --rest-url $REST --instance $INSTANCE | lob-parse | lob-book --refresh 1s | lob-publish --to shm: --to ndjson:$OUT/out"
  eventually 10 grep -qs '"state":"live"' "$OUT/out"
}

@test "rings: JSON in a pipe, columns at a terminal" {
  start_pipeline
  lob-trace rings --instance "$INSTANCE" >"$OUT/rings"
  lines "$OUT/rings" '[r["ring"].rpartition(".")[2] for r in d] == ["raw", "events", "book", "board", "public"]'
  lines "$OUT/rings" 'all(r["owner_alive"] for r in d) and all(r["drops"] == 0 for r in d if "drops" in r)'
  run -0 "$BATS_TEST_DIRNAME/at_terminal" never "lob-trace rings --instance $INSTANCE"
  [[ "$output" == *RING*KIND*OWNER*"connection 0 up"* ]]
}

@test "latency: a row a stage and one for the whole way; | head -1 ends it with 0" {
  start_pipeline
  lob-trace 1 1 --instance "$INSTANCE" >"$OUT/latency"
  lines "$OUT/latency" '[r["stage"] for r in d] == ["connect", "parse", "book", "publish", "end to end"]'
  lines "$OUT/latency" 'all(r["count"] > 0 and 0 < r["p50_us"] <= r["p99_us"] <= r["max_us"] for r in d)'
  run -0 bash -o pipefail -c "lob-trace 200ms --instance $INSTANCE | head -1"
  [ "${#lines[@]}" -eq 1 ]
}

@test "request: lob-connect gets the snapshot that was asked for" {
  start_pipeline
  before=$(snapshots)
  run -0 --separate-stderr lob-trace request "$INSTANCE" resync BTCUSDT
  [[ "$stderr" == "lob-trace: opened /lob.$INSTANCE.raw read-write and posted: resync BTCUSDT, id "* ]]
  eventually 5 one_more
}
snapshots() { venue_get truth/stats | grep -o '"api":[0-9]*' | cut -d: -f2; } # GETs by REST
one_more() { [ "$(snapshots)" -gt "$before" ]; }

@test "clean asks first, and without a terminal to ask on it removes nothing: 2" {
  lob-connect binance --replay "$SEED7" --out "/lob.$INSTANCE.raw" 2>"$OUT/replay.err"
  run -2 --separate-stderr lob-trace clean "$INSTANCE" </dev/null
  [[ "$stderr" == *"1 to remove and no terminal to ask on; give --yes"* ]]
  run "$BATS_TEST_DIRNAME/at_terminal" "y/N" "lob-trace clean $INSTANCE"
  [[ "$output" == *"Remove these 1?"* ]]
  [ -n "$(shm_files)" ]
  run -0 --separate-stderr lob-trace clean --yes "$INSTANCE"
  [[ "$output" == *"{\"removed\":\"/lob.$INSTANCE.raw\",\"what\":\"ring\"}"* ]]
  [ -z "$(shm_files)" ]
}

@test "where nothing runs it says so: 1 for latency and requests, an empty list of rings" {
  run -1 --separate-stderr lob-trace 1 1 --instance "$INSTANCE"
  [[ "$stderr" == *"no traced stage of instance $INSTANCE on this host; is a pipeline running?" ]]
  run -1 --separate-stderr lob-trace request "$INSTANCE" resync
  [[ "$stderr" == *"no raw ring of instance $INSTANCE; \`lob-trace rings\` lists what there is" ]]
  run -0 --separate-stderr lob-trace rings --instance "$INSTANCE"
  [ -z "$output" ]
  [ "$stderr" = "lob-trace: no rings of instance $INSTANCE" ]
}

@test "a verb misspelt is met with the list of verbs, a wrong interval with how to write one: 2" {
  run -2 --separate-stderr lob-trace ring
  [[ "$stderr" == "lob-trace: 'ring' is neither an INTERVAL nor one of books, clean, "*", rings, top"* ]]
  run -2 --separate-stderr lob-trace 5x
  [[ "$stderr" == *"'5x' is no duration; write e.g. 30s or 500ms"* ]]
}

@test "the Python of the README, as it stands there, beside a pipeline" {
  start_pipeline
  sed -n '/^```python/,/^```/{/^```/d;p}' "$ROOT/README.md" | sed "s/binance/$INSTANCE/" >"$OUT/readme.py"
  grep -q lob.Board "$OUT/readme.py"
  start python python -u "$OUT/readme.py"
  eventually 5 grep -q "live \[('11" "$OUT/python.out"
  eventually 5 grep -q "^BTCUSDT (\[('11" "$OUT/python.out"
}
