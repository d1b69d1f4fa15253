# Recordings through the real pipeline: the same books and the same bytes, and what is said of damaged ones.
load helper

# replay VENUE FILE... [OPTION...]: NDJSON on stdout, the summary in $OUT/summary.
replay() {
  local venue=$1
  shift
  lob-connect "$venue" --instance "$INSTANCE" --replay "$@" 2>>"$OUT/replay.err" </dev/null |
    lob-parse 2>>"$OUT/replay.err" | lob-book --summary "$OUT/summary" 2>>"$OUT/replay.err" | lob-publish 2>>"$OUT/replay.err"
}

@test "a replay gives the books of the independent rebuild" {
  for venue in binance kraken; do
    replay "$venue" "$RECORDINGS/$venue-seed7.jsonl.gz" >/dev/null
    TRUTH=$RECORDINGS/$venue-seed7.truth.json json "$OUT/summary" '(
      t := json.load(open(__import__("os").environ["TRUTH"]))["symbols"]) and d["instruments"].keys() == t.keys() and all(
      (b["state"], b["updates"], b["bids"], b["asks"]) == ("live", t[s]["updates"], t[s]["bids_top10"], t[s]["asks_top10"])
      for s, b in d["instruments"].items())'
  done
}

@test "two replays give the same bytes, plain, gzip or zstandard, at full speed or at a hundred times the real one" {
  gzip -dc "$SEED7" >"$OUT/r.jsonl"
  python -c 'import sys, zstandard; sys.stdout.buffer.write(zstandard.compress(sys.stdin.buffer.read()))' <"$OUT/r.jsonl" >"$OUT/r.zst"
  replay binance "$SEED7" >"$OUT/1"
  replay binance "$OUT/r.jsonl" >"$OUT/2"
  replay binance "$OUT/r.zst" --speed 100 >"$OUT/3"
  [ "$(wc -l <"$OUT/1")" -gt 500 ]
  cmp "$OUT/1" "$OUT/2"
  cmp "$OUT/1" "$OUT/3"
}

@test "a replay by two workers has the lines of one, and head -1 ends it with 0" {
  replay binance "$SEED7" >"$OUT/1"
  lob-connect binance --instance "$INSTANCE" --replay "$SEED7" 2>>"$OUT/replay.err" </dev/null | lob-parse 2>>"$OUT/replay.err" |
    lob-book 2>>"$OUT/replay.err" | lob-publish --workers 2 --to "ndjson:$OUT/out.ndjson" --to ndjson:- >"$OUT/2" 2>"$OUT/publish.err"
  cmp <(sort "$OUT/1") <(sort "$OUT/2")
  cmp <(sort "$OUT/1") <(sort "$OUT/out.1.ndjson" "$OUT/out.2.ndjson")
  lob-connect binance --instance "$INSTANCE" --replay "$SEED7" 2>>"$OUT/replay.err" </dev/null | lob-parse 2>>"$OUT/replay.err" |
    lob-book 2>>"$OUT/replay.err" | { lob-publish --workers 2 2>>"$OUT/publish.err"; echo $? >"$OUT/status"; } | head -1 >"$OUT/first"
  [ "$(wc -l <"$OUT/first")" -eq 1 ]
  [ "$(cat "$OUT/status")" -eq 0 ]
}

@test "--speed real keeps the recorded times, and --for ends it" {
  before=${EPOCHREALTIME/[.,]/}
  replay binance "$SEED7" --speed real --for 1s >"$OUT/1"
  [ $((${EPOCHREALTIME/[.,]/} - before)) -gt 900000 ]
  replay binance "$SEED7" >"$OUT/all"
  [ "$(wc -l <"$OUT/1")" -gt 0 ]
  [ "$(wc -l <"$OUT/1")" -lt "$(wc -l <"$OUT/all")" ]
  cmp "$OUT/1" <(head -c "$(wc -c <"$OUT/1")" "$OUT/all")
}

@test "several files are played one after the other" {
  lob-connect binance --instance "$INSTANCE" --replay "$SEED7" "$SEED7" --print >"$OUT/two" 2>"$OUT/two.err"
  lob-connect binance --instance "$INSTANCE" --replay "$SEED7" --print >"$OUT/one" 2>"$OUT/one.err"
  [ "$(wc -l <"$OUT/two")" -eq $((2 * $(wc -l <"$OUT/one"))) ]
}

@test "a dropped message makes a book stale: by its number at Binance, by its checksum at Kraken" {
  replay binance "$RECORDINGS/binance-mutated-drop.jsonl.gz" >"$OUT/1"
  json "$OUT/summary" 'sum(b["gaps"] for b in d["instruments"].values()) == 1'
  lines "$OUT/1" 'any((r.get("state"), r.get("reason")) == ("stale", "gap") for r in d)'
  replay kraken "$RECORDINGS/kraken-mutated-drop.jsonl.gz" >"$OUT/2"
  json "$OUT/summary" 'sum(b["checksums_failed"] for b in d["instruments"].values()) == 1'
  lines "$OUT/2" 'any((r.get("state"), r.get("reason")) == ("stale", "checksum") for r in d)'
}

@test "the summary and the last line say why a book is not live" {
  gzip -dc "$RECORDINGS/binance-mutated-drop.jsonl.gz" | head -220 >"$OUT/r.jsonl" # ends before the next snapshot
  replay binance "$OUT/r.jsonl" >/dev/null
  json "$OUT/summary" '{(b["state"], b["reason"]) for b in d["instruments"].values()} == {("live", "none"), ("stale", "gap")}'
  grep -q "lob-book: binance: 2 books, 1 live (1 gap), " "$OUT/replay.err"
  grep -q "lob-book: binance .*: 1 sequence gaps; waiting for the recording's next snapshot" "$OUT/replay.err"
}

@test "a recording of another venue: one sentence that says what it holds, 1" {
  run -1 --separate-stderr lob-connect kraken --instance "$INSTANCE" --replay "$SEED7" --print
  [ -z "$output" ]
  [[ "${stderr_lines[0]}" == "lob-connect: nothing of kraken in $SEED7; it holds https://api.binance.com/"* ]]
}

@test "a recording cut short is played as far as it goes, then 1" {
  head -c 20000 "$SEED7" >"$OUT/cut.gz"
  run -1 --separate-stderr lob-connect binance --instance "$INSTANCE" --replay "$OUT/cut.gz" --print
  [ "${#lines[@]}" -gt 100 ]
  [[ "${stderr_lines[0]}" == "lob-connect: $OUT/cut.gz: the compressed data are cut short; what there was has been read"* ]]
}

@test "a damaged line is named, what stood before it is played, then 1, and 1 downstream" {
  { gzip -dc "$SEED7" | head -99; echo '{"ts_ns":1,'; } >"$OUT/bad.jsonl"
  run -1 bash -o pipefail -c "lob-connect binance --instance $INSTANCE --replay $OUT/bad.jsonl 2>$OUT/1.err | lob-parse >$OUT/events 2>$OUT/2.err"
  grep -q "^lob-connect: $OUT/bad.jsonl:100: no JSON; the replay ends here" "$OUT/1.err"
  grep -q "ended without closing its ring; what it left was read" "$OUT/2.err"
  grep -q '"diff"' "$OUT/events"
}

@test "no such recording, or a folder: 1, and its name" {
  for what in "$OUT/nosuch.jsonl" "$OUT"; do
    run -1 --separate-stderr lob-connect binance --instance "$INSTANCE" --replay "$what" --print
    [[ "${stderr_lines[0]}" == "lob-connect: $what: "* ]]
  done
}
