# Named rings (--in, --out), as the services use them: they live apart from the processes.
load helper
setup_file() { start_venue_of_file; }

ring() { echo "/lob.$INSTANCE.$1"; }
connect() { start connect lob-connect binance BTCUSDT --url "$WS" --rest-url "$REST" --out "$(ring raw)"; }
parse() { start parse lob-parse --in "$(ring raw)" --out "$(ring events)"; }
book() { start book lob-book --in "$(ring events)" --out "$(ring book)"; }
publish() { start publish lob-publish --in "$(ring book)" --to "ndjson:$OUT/out"; }

# count_live N: the book has become live so often.
count_live() { [ -e "$OUT/out" ] && [ "$(grep -c '"state":"live"' "$OUT/out")" -ge "$1" ]; }

# board: state and reason of the book, as a strategy sees it.
board() {
  python -c 'import lob, sys; top = lob.Board(sys.argv[1]).top("BTCUSDT"); print(top.state.name, top.reason.name, top.detail)' "$INSTANCE"
}

stale() { [[ "$(board)" == "STALE "* ]]; }

@test "stages may be started in any order; --in reads no stdin, --out writes no stdout, the board stands beside the ring" {
  use_venue
  publish && book && parse && connect
  eventually 10 count_live 1
  [ "$(board)" = "LIVE NONE " ]
  [ ! -s "$OUT/connect.out" ] && [ ! -s "$OUT/parse.out" ] && [ ! -s "$OUT/book.out" ]
}

@test "a killed lob-parse: the board is stale at once, and live again when it is back; nobody else is restarted" {
  use_venue
  connect && parse && killed=$STARTED && book && publish
  eventually 10 count_live 1
  stop "$killed" KILL
  eventually 2 stale # 1 s, and the start of Python
  [[ "$(lob-trace rings --instance "$INSTANCE" | grep events)" == *'"owner_alive":false'* ]]
  parse
  eventually 10 count_live 2
  [ "$(board)" = "LIVE NONE " ]
}

@test "a stop leaves the rings paused; the next owner goes on in them; lob-trace clean removes them" {
  use_venue
  connect && connect_1=$STARTED && parse && parse_1=$STARTED && book && book_1=$STARTED
  publish
  eventually 10 count_live 1
  stop "$connect_1" && stop "$parse_1" && stop "$book_1"
  lob-trace rings --instance "$INSTANCE" >"$OUT/rings"
  lines "$OUT/rings" '{r["state"] for r in d if r["kind"] != "board"} == {"paused"}'
  connect && parse && book
  eventually 10 count_live 2
  run -0 lob-trace clean --yes "$INSTANCE" # keeps what is held, and says so
  [[ "$output" == *"is held by a live process; kept"* ]]
  eventually 1 test -e "/dev/shm/lob.$INSTANCE.raw"
  for group in "${GROUPS_STARTED[@]:1}"; do stop "$group"; done
  run -0 --separate-stderr lob-trace clean --yes "$INSTANCE"
  for what in raw events book board; do [[ "$output" == *"/lob.$INSTANCE.$what\""* ]]; done
  [ -z "$(shm_files)" ]
}
