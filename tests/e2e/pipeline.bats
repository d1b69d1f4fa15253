# The whole pipeline and each prefix of it, on the simulated venue.
load helper
setup_file() { start_venue_of_file; }

# binance, kraken ...: what to give lob-connect for a symbol of the simulated venue.
binance() { echo binance "${1:-BTCUSDT}" --url "$WS" --rest-url "$REST" --instance "$INSTANCE"; }
kraken() { echo kraken BTC/USD --url "$(venue_fact kraken_ws)" --rest-url "$REST" --instance "$INSTANCE"; }
coinbase() { echo coinbase BTC-USD --url "$(venue_fact coinbase_ws)" --rest-url "$REST" --instance "$INSTANCE"; }
usdm() { echo binance-usdm BTCUSDT --url "$(venue_fact usdm_ws)" --rest-url "$REST" --instance "$INSTANCE"; }

# in_a_pipe COMMAND: with pipefail, its status is the first bad one; stderr of all of it in $OUT/pipe.err.
in_a_pipe() { bash -o pipefail -c "$1" </dev/null 2>>"$OUT/pipe.err"; }

@test "the four commands in a pipe print live books as NDJSON, stop after --for, and leave nothing behind" {
  use_venue
  in_a_pipe "lob-connect $(binance 'BTCUSDT ETHUSDT') --for 2s | lob-parse | lob-book | lob-publish" >"$OUT/out"
  lines "$OUT/out" '{r["type"] for r in d} >= {"instrument", "snapshot", "diff", "bbo", "trade", "status"}'
  lines "$OUT/out" '{r["symbol"] for r in d if r.get("state") == "live"} == {"BTCUSDT", "ETHUSDT"}'
  [ "$(grep -c ' 0 dropped\| 0 bad, 0 unknown\| 0 gaps\|lost 0' "$OUT/pipe.err")" -eq 4 ]
  [ -z "$(shm_files)" ]
}

@test "what it prints is the venue's true book" {
  start_venue
  start pipe bash -c "lob-connect $(binance) | lob-parse | lob-book | lob-publish >$OUT/out"
  eventually 10 grep -qs '"state":"live"' "$OUT/out"
  eventually 10 grep -qs '"bbo"' "$OUT/out"
  venue_get "control/pause" >/dev/null
  venue_get "truth/book?symbol=BTCUSDT&depth=1" >"$OUT/truth"
  newest_is_true() {
    lines "$OUT/out" '[[[b["bid"]], [b["ask"]]] for b in d if b["type"] == "bbo"][-1] == [json.load(open("'"$OUT"'/truth"))[s] for s in ("bids", "asks")]'
  }
  eventually 5 newest_is_true
}

@test "each prefix prints records into a file, also with --print into a pipe" {
  use_venue
  in_a_pipe "lob-connect $(binance) --for 1s >$OUT/raw"
  in_a_pipe "lob-connect $(binance) --for 1s | lob-parse >$OUT/events"
  in_a_pipe "lob-connect $(binance) --for 1s | lob-parse | lob-book --print | cat >$OUT/books"
  lines "$OUT/raw" '{r["type"] for r in d} == {"link", "raw_sent", "raw_frame", "raw_http"}'
  lines "$OUT/events" '{r["type"] for r in d} >= {"link", "instrument", "diff", "bbo", "trade"}'
  lines "$OUT/books" '{r["type"] for r in d} >= {"instrument", "snapshot", "diff", "bbo", "status"}'
  [ -z "$(shm_files)" ]
}

@test "into a pipe without --print goes one line that names the ring" {
  use_venue
  in_a_pipe "lob-connect $(binance) | head -1" >"$OUT/out"
  lines "$OUT/out" 'len(d) == 1 and d[0]["ring"] == "/lob.'"$INSTANCE"'.raw" and d[0]["venue"] == "binance"'
}

@test "a reader that has seen enough (| head -1) ends every prefix with 0" {
  use_venue
  in_a_pipe "lob-connect $(binance) --print | head -1" >"$OUT/1"
  in_a_pipe "lob-connect $(binance) | lob-parse --print | head -1" >"$OUT/2"
  in_a_pipe "lob-connect $(binance) | lob-parse | lob-book --print | head -1" >"$OUT/3"
  in_a_pipe "lob-connect $(binance) | lob-parse | lob-book | lob-publish | head -1" >"$OUT/4"
  [ "$(cat "$OUT"/[1-4] | wc -l)" -eq 4 ]
  [ -z "$(shm_files)" ]
}

@test "SIGTERM to all four ends them with 0, with one line of totals each" {
  use_venue
  start pipe bash -o pipefail -c "trap '' TERM; lob-connect $(binance) | lob-parse | lob-book | lob-publish >$OUT/out; echo status \$? >&2"
  eventually 10 grep -qs '"state":"live"' "$OUT/out"
  stop "$STARTED"
  [ "$(wc -l <"$OUT/pipe.err")" -eq 5 ]
  grep -q "^status 0" "$OUT/pipe.err"
  [ -z "$(shm_files)" ]
}

@test "Binance USD-M futures, Coinbase and Kraken give live books too" {
  use_venue
  for venue in usdm coinbase kraken; do
    start "$venue" bash -o pipefail -c \
      "lob-connect $($venue)-$venue --for 2s | lob-parse | lob-book --summary $OUT/$venue | lob-publish >$OUT/$venue.out"
  done
  for venue in usdm coinbase kraken; do
    eventually 10 test -s "$OUT/$venue"
    lines "$OUT/$venue.out" 'any(r.get("state") == "live" for r in d)'
    json "$OUT/$venue" 'all(b["updates"] > 0 and b["gaps"] == b["checksums_failed"] == 0 for b in d["instruments"].values())'
  done
  json "$OUT/kraken" 'd["instruments"]["BTC/USD"]["checksums_ok"] > 0'
}

live_again() { [ "$(grep -c '"state":"live"' "$OUT/out")" -ge "$1" ]; }

@test "a lost message, then a cut connection: stale first, with the reason, then live again" {
  use_venue
  start pipe bash -c "lob-connect $(binance) | lob-parse | lob-book | lob-publish >$OUT/out"
  eventually 10 grep -qs '"state":"live"' "$OUT/out"
  venue_get "control/drop?n=1&symbol=BTCUSDT" >/dev/null
  eventually 10 live_again 2
  venue_get control/cut >/dev/null
  eventually 10 live_again 3
  lines "$OUT/out" '[r["reason"] for r in d if r.get("state") == "stale"] == ["gap", "link_down"]'
}

@test "--instance travels down the pipe: two pipelines of one venue side by side" {
  use_venue
  start one bash -c "lob-connect $(binance) | lob-parse | lob-book | lob-publish --to shm:"
  eventually 10 test -e "/dev/shm/lob.$INSTANCE.public"
  for what in raw events book board public; do [ -e "/dev/shm/lob.$INSTANCE.$what" ]; done
  INSTANCE=$INSTANCE-b
  in_a_pipe "lob-connect $(binance) --for 1s | lob-parse | lob-book | lob-publish >$OUT/out"
  lines "$OUT/out" 'any(r.get("state") == "live" for r in d)'
  INSTANCE=${INSTANCE%-b}
}

@test "a second pipeline of the same instance is refused with 3, and told who has the ring" {
  use_venue
  start one bash -c "lob-connect $(binance) | lob-parse | lob-book | lob-publish >$OUT/out"
  eventually 10 grep -qs '"state":"live"' "$OUT/out"
  owner=$(lob-trace rings --instance "$INSTANCE" | python -c 'import json, sys; print(json.loads(sys.stdin.readline())["owner_pid"])')
  run -0 --separate-stderr bash -c "lob-connect $(binance) | lob-parse; echo \${PIPESTATUS[*]}"
  [ "$output" = "3 1" ]
  [[ "$stderr" == *"/lob.$INSTANCE.raw has a live owner (pid $owner)"*"--instance"* ]]
  kill -0 "$owner"
}

@test "at a terminal lob-book and lob-publish draw a table, and Ctrl-C ends all with 0" {
  use_venue
  run -0 "$BATS_TEST_DIRNAME/at_terminal" live "lob-connect $(binance) | lob-parse | lob-book"
  [[ "$output" == *SYMBOL*STATE*BTCUSDT*"lob-book: binance: 1 books"* ]]
  run -0 "$BATS_TEST_DIRNAME/at_terminal" live "lob-connect $(binance) | lob-parse | lob-book | lob-publish"
  [[ "$output" == *SYMBOL*STATE*BTCUSDT*"lob-publish: "* ]]
  [ -z "$(shm_files)" ]
}

@test "at a terminal lob-connect and lob-parse print records, and Ctrl-C ends them with 0" {
  use_venue
  run -0 "$BATS_TEST_DIRNAME/at_terminal" depthUpdate "lob-connect $(binance)"
  [[ "$output" == *raw_frame*"lob-connect: "*" frames"* ]]
  run -0 "$BATS_TEST_DIRNAME/at_terminal" '"diff"' "lob-connect $(binance) | lob-parse"
  [[ "$output" == *'"type":"diff"'* ]]
}

@test "the demo shows prices and what the way cost, in a file" {
  run -0 --separate-stderr python "$ROOT/demo/run" --seconds 3
  [[ "$output" == *"BTCUSDT    bid"*"ETHUSDT    bid"*"lob-publish: "*"latency from the socket to the book ring"* ]]
  [ -z "$stderr" ]
}
