# Recording a live feed.
load helper
setup_file() { start_venue_of_file; }

binance() { echo binance BTCUSDT --url "$WS" --rest-url "$REST" --instance "$INSTANCE"; }

@test "what --record writes, --replay reads: the same books" {
  use_venue
  bash -o pipefail -c "lob-connect $(binance) --for 1500ms --record $OUT/jsonl | lob-parse | lob-book --summary $OUT/live | lob-publish >$OUT/live.out" 2>"$OUT/live.err"
  bash -o pipefail -c "lob-connect binance --instance $INSTANCE --replay $OUT/jsonl | lob-parse | lob-book --summary $OUT/again >/dev/null" 2>"$OUT/again.err"
  json "$OUT/live" 'd["instruments"]["BTCUSDT"]["updates"] > 3'
  cmp "$OUT/live" "$OUT/again"
}

@test "--record compresses by the suffix, and --replay reads it" {
  use_venue
  for suffix in gz zst; do
    lob-connect $(binance) --for 700ms --record "$OUT/jsonl.$suffix" >"$OUT/live" 2>"$OUT/live.err"
    lob-connect binance --replay "$OUT/jsonl.$suffix" --print >"$OUT/again" 2>"$OUT/again.err"
    [ "$(grep -c raw_frame "$OUT/live")" -eq "$(grep -c raw_frame "$OUT/again")" ]
  done
  [ "$(head -c 2 "$OUT/jsonl.gz" | od -An -tx1 | tr -d ' ')" = 1f8b ]
  [ "$(head -c 4 "$OUT/jsonl.zst" | od -An -tx1 | tr -d ' ')" = 28b52ffd ]
}

@test "lob-connect alone, into /dev/null, makes a whole recording: it asks for the snapshot itself" {
  use_venue
  lob-connect $(binance) --for 2s --record "$OUT/r.jsonl" >/dev/null 2>"$OUT/record.err"
  bash -o pipefail -c "lob-connect binance --instance $INSTANCE --replay $OUT/r.jsonl | lob-parse | lob-book --summary $OUT/s >$OUT/out" 2>"$OUT/again.err"
  json "$OUT/s" 'd["instruments"]["BTCUSDT"]["updates"] > 0 and d["instruments"]["BTCUSDT"]["reason"] == "link_down"'
  grep -q '"state":"live"' "$OUT/out"
}

@test "a recording is never overwritten" {
  echo precious >"$OUT/r.jsonl"
  run -2 --separate-stderr lob-connect binance BTCUSDT --record "$OUT/r.jsonl"
  [[ "$stderr" == *"$OUT/r.jsonl: exists already; a recording never overwrites one"* ]]
  [ "$(cat "$OUT/r.jsonl")" = precious ]
}

@test "times are filled into its name" {
  use_venue
  lob-connect $(binance) --for 500ms --record "$OUT/%Y.jsonl" >/dev/null 2>"$OUT/record.err"
  [ -s "$OUT/$(date -u +%Y).jsonl" ]
}

@test "a full disk ends the recording and the feed with 1, and one sentence" {
  use_venue
  run -1 --separate-stderr lob-connect $(binance) --for 5s --record /dev/full --print
  [[ "${stderr_lines[0]}" == "lob-connect: /dev/full: No space left on device; the recording ends here, and so does this feed" ]]
}

@test "a folder that is not there: 2, before anything is asked of the venue" {
  run -2 --separate-stderr lob-connect binance BTCUSDT --record "$OUT/nosuch/r.jsonl"
  [[ "$stderr" == *"$OUT/nosuch/r.jsonl: No such file or directory"* ]]
}
