# helper.bash - what every .bats file loads: an instance of its own, processes that end with the test, waiting for a
# condition. Use:
#
#   load helper
#   @test "..." {
#     start_venue --rate 500                                  # -> $WS, $REST, $VENUE_URL; or one for a whole file:
#                                                             #    setup_file() { start_venue_of_file; }, then use_venue
#     start pipe bash -c "lob-connect ... | lob-parse | ..."    # -> $STARTED; output in $OUT/pipe.out, $OUT/pipe.err
#     eventually 10 grep -q '"bbo"' "$OUT/pipe.out"
#     stop $STARTED                                           # SIGTERM to all of it, and wait
#   }
#
# A test fails too if anything wrote a Python traceback.
bats_require_minimum_version 1.5.0

ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
export PATH="$ROOT/.venv/bin:$PATH"
RECORDINGS=$ROOT/tests/recordings
SEED7=$RECORDINGS/binance-seed7.jsonl.gz
unset PYTHONPATH NOTIFY_SOCKET

setup() {
  INSTANCE="e2e-$$-$BATS_SUITE_TEST_NUMBER"
  OUT=$BATS_TEST_TMPDIR
  GROUPS_STARTED=()
}

teardown() {
  local group
  for group in "${GROUPS_STARTED[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
  for group in "${GROUPS_STARTED[@]}"; do
    eventually 5 ended "$group" || kill -KILL -- "-$group" 2>/dev/null || true
  done
  rm -f /dev/shm/lob."$INSTANCE"[.-]* /dev/shm/.lob."$INSTANCE"[.-]*
  if [ -z "$BATS_TEST_COMPLETED" ]; then
    local file
    for file in "$OUT"/*.err; do [ -s "$file" ] && { echo "--- ${file##*/}"; tail -20 "$file"; }; done
    [ -z "${output-}${stderr-}" ] || printf '%s\n' "--- run" "${output-}" "${stderr-}" | tail -c 3000
  fi
  ! grep -s Traceback - "$OUT"/*.err <<<"${output-}${stderr-}"
}

# start NAME COMMAND...: in the background, in a process group of its own, without stdin. -> $STARTED, its number.
start() {
  local name=$1
  shift
  setsid "$@" </dev/null >"$OUT/$name.out" 2>"$OUT/$name.err" 3>&- &
  STARTED=$!
  GROUPS_STARTED+=("$STARTED")
}

# ended GROUP: no process of it is left but zombies (of /proc/PID/stat: state, parent, group).
ended() {
  ! cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | awk -v group="$1" '$3 == group && $1 != "Z" { n++ } END { exit !n }'
}

# stop GROUP [SIGNAL]: and wait until all of it is gone.
stop() {
  kill "-${2:-TERM}" -- "-$1" 2>/dev/null || true
  eventually 10 ended "$1"
}

# eventually SECONDS COMMAND...: until it succeeds; fails after the deadline and says what did not come true.
eventually() {
  local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
  shift
  until "$@"; do
    if ((${EPOCHREALTIME/[.,]/} > deadline)); then
      echo "not in time: $*" >&2
      return 1
    fi
    sleep 0.05
  done
}

# start_venue [OPTION]...: a simulated venue. -> $WS, $REST (Binance spot), $VENUE_URL (its /control and /truth).
start_venue() {
  start venue env PYTHONPATH="$ROOT/tests" python -m exchange "$@"
  eventually 10 grep -q . "$OUT/venue.out"
  WS=$(venue_fact ws) REST=$(venue_fact rest) VENUE_URL=$REST
}

# start_venue_of_file [OPTION]...: for setup_file; the tests of the file `use_venue`, and leave it as it was.
start_venue_of_file() {
  setsid env PYTHONPATH="$ROOT/tests" python -m exchange "$@" </dev/null >"$BATS_FILE_TMPDIR/venue" 3>&- &
  export VENUE_OF_FILE=$!
  eventually 10 grep -q . "$BATS_FILE_TMPDIR/venue"
}

teardown_file() { [ -z "${VENUE_OF_FILE-}" ] || kill "$VENUE_OF_FILE"; }

use_venue() {
  cp "$BATS_FILE_TMPDIR/venue" "$OUT/venue.out"
  WS=$(venue_fact ws) REST=$(venue_fact rest) VENUE_URL=$REST
}

# venue_fact KEY: from the venue's line, e.g. kraken_ws, port.
venue_fact() {
  python -S -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <"$OUT/venue.out"
}

# venue_get PATH: e.g. control/drop?n=2, truth/book?symbol=BTCUSDT.
venue_get() {
  python -S -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "$VENUE_URL/$1"
}

# shm_files: what there is of this test's instance in shared memory.
shm_files() {
  find /dev/shm -maxdepth 1 \( -name "lob.$INSTANCE.*" -o -name ".lob.$INSTANCE.*" \)
}

# json FILE EXPRESSION: of Python, `d` is the JSON object in FILE; prints the value, exits 1 if it is false.
json() {
  python -S -c 'import json, sys; d = json.load(open(sys.argv[1])); v = eval(sys.argv[2]); print(v); sys.exit(not v)' "$@"
}

# lines FILE EXPRESSION: the same, `d` is the list of the JSON objects in FILE, one a line.
lines() {
  python -S -c 'import json, sys; d = list(map(json.loads, open(sys.argv[1]))); v = eval(sys.argv[2]); print(v); sys.exit(not v)' "$@"
}
