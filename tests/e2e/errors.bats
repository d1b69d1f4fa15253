# What goes wrong at a user's desk: one sentence that says what happened and what to do, and the right exit status.
load helper

# says STATUS WORDS COMMAND...: it ends with that status; its first line has those words, behind the tool's name.
says() {
  local words=$2
  run "-$1" --separate-stderr "${@:3}" </dev/null
  [[ "${stderr_lines[0]}" == "$3: "*"$words"* ]]
}

# piped STATUS WORDS NAME SCRIPT: the same of the last command of a pipe, which is NAME.
piped() {
  local words=$2
  run "-$1" --separate-stderr bash -c "$4" </dev/null
  [[ "${stderr_lines[0]}" == "$3: "*"$words"* ]]
}

@test "wrong arguments of lob-connect" {
  says 2 "known: binance, binance-usdm, coinbase, kraken" lob-connect nosuch BTCUSDT
  says 2 "no symbols: name one or more" lob-connect binance
  says 2 "wss:// or ws://" lob-connect binance BTCUSDT --url http://example.org
  says 2 "--url without --rest-url" lob-connect binance BTCUSDT --url ws://127.0.0.1:9
  says 2 "--speed goes with --replay" lob-connect binance BTCUSDT --speed 10
  says 2 "is no speed: max, real, or how many times as fast" lob-connect binance --replay "$SEED7" --speed 0
  says 2 "--record is of no use with --replay" lob-connect binance --replay "$SEED7" --record "$OUT/r"
}

@test "wrong values of the options that all stages have" {
  says 2 "is no duration; write e.g. 30s or 500ms" lob-connect binance BTCUSDT --for soon
  says 2 "is no power of two" lob-connect binance BTCUSDT --ring-bytes 33
  says 2 "is no instance name" lob-connect binance BTCUSDT --instance a/b
  says 2 "is no ring name" lob-parse --in raw
  says 2 "allowed: " lob-book --cpu 4000 --in "/lob.$INSTANCE.events"
  says 2 "no group named" lob-book --shm-group nosuch --in "/lob.$INSTANCE.events"
  says 2 "there is no folder /nosuch" lob-book --summary /nosuch/s.json --in "/lob.$INSTANCE.events"
  says 2 "no such sink; there are ndjson:, shm:, table:" lob-publish --to pigeon: --in "/lob.$INSTANCE.book"
}

@test "stages joined in the wrong order say whose ring they were given: 2" {
  raw="lob-connect binance --instance $INSTANCE --replay $SEED7 2>/dev/null"
  piped 2 "is a ring of lob-connect; lob-book reads those of lob-parse" lob-book "$raw | lob-book --print"
  piped 2 "is a ring of lob-parse; lob-parse reads those of lob-connect" lob-parse "$raw | lob-parse 2>/dev/null | lob-parse"
  piped 2 "is a ring of lob-book; lob-book reads those of lob-parse" lob-book "$raw | lob-parse 2>/dev/null | lob-book 2>/dev/null | lob-book"
  piped 2 "pipe lob-book into lob-publish" lob-publish "$raw | lob-parse 2>/dev/null | lob-publish"
  [ -z "$(shm_files)" ]
}

@test "records as text are no ring: 2, with a hint" {
  piped 2 "stdin: no line of lob-connect, lob-parse or lob-book" lob-parse "echo '{\"type\":\"raw_frame\"}' | lob-parse"
}

@test "a stage at a terminal with nothing before it says what to do: 2" {
  for stage in lob-parse lob-book lob-publish; do
    run -2 "$BATS_TEST_DIRNAME/at_terminal" never "$stage"
    [[ "$output" == "$stage: stdin is a terminal; pipe the stage before into this one, or give --in RING"* ]]
  done
}

@test "a symbol that the venue does not list: 2, with the venue's own words" {
  start_venue
  says 2 "binance does not accept NOSUCH: HTTP 400" lob-connect binance NOSUCH --url "$WS" --rest-url "$REST" --instance "$INSTANCE" --print
}

@test "a venue that cannot be reached is named, tried again, and --for still ends it" {
  run -0 --separate-stderr lob-connect binance BTCUSDT --url ws://127.0.0.1:9 --rest-url http://127.0.0.1:9 --for 1s --print
  [[ "$stderr" == *"cannot connect to ws://127.0.0.1:9/"*"; next attempt in "*" s"* ]]
}

@test "a ring that is not there: 1 after --ring-timeout, by its name" {
  for stage in lob-parse lob-book lob-publish; do
    says 1 "no ring named /lob.$INSTANCE.x; is the stage that makes it running?" "$stage" --in "/lob.$INSTANCE.x" --ring-timeout 100ms
  done
}

@test "a file in shared memory that is no ring, or of another layout: 3" {
  head -c 100000 /dev/zero | tr '\0' x >"/dev/shm/lob.$INSTANCE.events"
  says 3 "/lob.$INSTANCE.events" lob-book --in "/lob.$INSTANCE.events" --print
  : >"/dev/shm/lob.$INSTANCE.book"
  says 3 "/lob.$INSTANCE.book" lob-publish --in "/lob.$INSTANCE.book"
}

@test "a full disk below stdout: one sentence and 1, whatever is printed" {
  replay="lob-connect binance --instance $INSTANCE --replay $SEED7"
  piped 1 "No space left on device" lob-connect "$replay >/dev/full"
  piped 1 "No space left on device" lob-parse "$replay 2>/dev/null | lob-parse >/dev/full"
  piped 1 "No space left on device" lob-book "$replay 2>/dev/null | lob-parse 2>/dev/null | lob-book >/dev/full"
  piped 1 "No space left on device; free some space" lob-publish "$replay 2>/dev/null | lob-parse 2>/dev/null | lob-book 2>/dev/null | lob-publish >/dev/full"
  piped 1 "No space left on device" lob-trace "lob-trace --help >/dev/full"
  [ -z "$(shm_files)" ]
}

@test "a sink that fails does not take the others with it" {
  run -0 --separate-stderr bash -c "lob-connect binance --instance $INSTANCE --replay $SEED7 2>/dev/null | lob-parse 2>/dev/null | lob-book 2>/dev/null | lob-publish --to ndjson:/dev/full --to ndjson:$OUT/good"
  [[ "$stderr" == *"lob-publish: ndjson:/dev/full: No space left on device"* ]]
  [ "$(wc -l <"$OUT/good")" -gt 500 ]
}
