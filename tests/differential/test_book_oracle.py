"""The native books against a plain Python model of the same rules: equal output after every record.

`PlainBooks` is written from the design's sentences (states, sequence rules, requests), with sorted dicts and ints, and
knows nothing of how the native code does it. `Flow` makes a random but reproducible stream of records with every
fault a venue or a ring can show: lost, doubled and reordered diffs, old snapshots, new sessions, holes in the ring,
new owners, finer digits, wrong checksums, crossed books. A failing test names its seed.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from sortedcontainers import SortedDict

import lob._native  # noqa: F401  the ring types must be known before the books'
from lob.records import (
    NO_CONNECTION,
    NO_INSTRUMENT,
    BookState,
    Flag,
    Outcome,
    Reason,
    RecordType,
    RequestKind,
    Scope,
    SequenceRule,
    build,
    parse,
)
from lob_book import _native

S = 1_000_000_000
NEVER = 2**63 - 1
INT64_MAX = 2**63 - 1
REFRESH_NS = 10 * S
BACKLOG = 12


@dataclass
class PlainBook:
    id: int
    facts: dict
    version: int
    connection: int
    session: int
    state: BookState | None = None
    reason: Reason = Reason.NONE
    silenced: bool = False
    has_lived: bool = False
    bids: SortedDict = field(default_factory=lambda: SortedDict(lambda p: -p))
    asks: SortedDict = field(default_factory=SortedDict)
    last_seq: int = 0
    joining: bool = False
    backlog: deque = field(default_factory=deque)
    bbo: tuple | None = None
    request_id: int = 0
    request_due: int = NEVER
    backoff: int = S
    live_since: int = 0
    refresh_due: int = NEVER
    updates: int = 0
    stale_dropped: int = 0
    gaps: int = 0
    resyncs: int = 0

    def levels(self):
        return tuple(self.bids.items()), tuple(self.asks.items())

    def best(self):
        bid = self.bids.peekitem(0) if self.bids else (0, 0)
        ask = self.asks.peekitem(0) if self.asks else (0, 0)
        return (*bid, *ask)

    def crossed(self):
        return bool(self.bids) and bool(self.asks) and self.bids.peekitem(0)[0] >= self.asks.peekitem(0)[0]

    def checksum(self):
        best = [level for side in (self.asks, self.bids) for level in side.items()[:10]]
        text = "".join(str(number).lstrip("0") for level in best for number in level)
        return zlib.crc32(text.encode())

    def depth(self, bound):
        return min(self.facts["depth"], bound) if self.facts["truncates"] and self.facts["depth"] else bound


def judge(rule, last_seq, joining, first, last, prev):
    if rule == SequenceRule.RANGE:
        return "stale" if last <= last_seq else "apply" if first <= last_seq + 1 else "gap"
    if rule == SequenceRule.STEP:
        return "stale" if last <= last_seq else "apply" if last == last_seq + 1 else "gap"
    if rule == SequenceRule.CHAIN:
        if joining:
            return "stale" if last < last_seq else "apply" if prev <= last_seq or first <= last_seq else "gap"
        return "apply" if prev == last_seq else "gap"
    return "apply"


class PlainBooks:
    def __init__(self, bound=65536, asks=True, per_s=20, burst=20):
        self.books: dict[int, PlainBook] = {}
        self.bound, self.asks = bound, asks
        self.interval, self.burst = S // per_s, burst
        self.sessions: dict[int, int] = {}
        self.down: set[int] = set()
        self.numbers: dict[int, int] = {}  # connection -> last number
        self.judged: dict[int, int] = {}  # connection -> raw_seq
        self.ring_seq = self.epoch = 0
        self.now = 0
        self.paced = 0
        self.next_id = 1
        self.out: list[tuple] = []
        self.requests: list[tuple] = []

    # -- entry points

    def feed(self, record: bytes, now: int):
        self.now, self.out = max(self.now, now), []
        r = parse(record)
        h = r.header
        if h["ring_seq"]:
            hole = self.ring_seq and h["ring_seq"] != self.ring_seq + 1
            owner = self.epoch and h["epoch"] != self.epoch
            if hole or owner:
                for book in self.books.values():
                    book.backlog.clear()
                    self.stale(book, Reason.LOST)
                self.numbers.clear()
                self.judged.clear()
                if owner:
                    self.sessions.clear()
                    self.down.clear()
            self.ring_seq, self.epoch = int(h["ring_seq"]), int(h["epoch"])
        getattr(self, "on_" + r.type.name.lower())(r, h, r.body)
        self.ask_due()
        return self.out

    def tick(self, now: int):
        self.now, self.out = max(self.now, now), []
        self.ask_due()
        while due := [b for b in self.books.values() if b.state == BookState.LIVE and b.refresh_due <= self.now]:
            book = min(due, key=lambda b: b.id)
            self.snapshot_out(book, Flag.REFRESH)
            self.schedule(book)
        return self.out

    def silent(self, silent: bool, now: int):
        self.now, self.out = max(self.now, now), []
        self.silence(silent)
        return self.out

    def silence(self, silent: bool):
        for book in self.books.values():
            if silent and book.state == BookState.LIVE:
                self.state(book, BookState.STALE, Reason.UPSTREAM_SILENT)
                book.silenced = True
            elif not silent:
                self.wake(book)

    def wake(self, book):
        if book.silenced:
            self.live(book, Flag.REFRESH)

    # -- records

    def on_instrument(self, r, h, b):
        facts = {name: (r.symbol if name == "symbol" else int(b[name])) for name in b.dtype.names if name != "pad"}
        book = self.books.get(int(h["instrument"]))
        if book is None or book.facts["symbol"] != facts["symbol"]:
            book = PlainBook(int(h["instrument"]), facts, int(h["version"]), int(h["connection"]), int(h["session"]))
            self.books[book.id] = book
            self.books = dict(sorted(self.books.items()))
            self.out.append(("instrument", book.id, book.version, facts["symbol"]))
            self.state(book, BookState.BUILDING, Reason.NONE)
            if facts["joins"]:
                self.want(book, self.now)
            return
        price_up = facts["price_scale"] - book.facts["price_scale"]
        qty_up = facts["qty_scale"] - book.facts["qty_scale"]
        book.facts, book.version = facts, int(h["version"])
        self.belongs(book, h)
        self.out.append(("instrument", book.id, book.version, facts["symbol"]))
        if book.state == BookState.CLOSED:
            book.bids.clear()
            book.asks.clear()
            self.state(book, BookState.BUILDING, Reason.NONE)
            if facts["joins"]:
                self.want(book, self.now)
        if not price_up and not qty_up:
            return

        def scaled(levels):
            result = []
            for price, qty in levels:
                price, qty = price * 10**price_up, qty * 10**qty_up
                if price > INT64_MAX or qty > INT64_MAX:
                    raise OverflowError
                result.append((price, qty))
            return result

        try:
            bids, asks = scaled(book.bids.items()), scaled(book.asks.items())
            backlog = [(*numbers, scaled(db), scaled(da), sums) for *numbers, db, da, sums in book.backlog]
        except OverflowError:
            book.bids.clear()
            book.asks.clear()
            book.backlog.clear()
            self.stale(book, Reason.OUT_OF_RANGE)
            return
        for side, levels in ((book.bids, bids), (book.asks, asks)):
            side.clear()
            side.update(levels)
        book.backlog = deque(backlog)
        if book.bbo is not None:
            book.bbo = book.best()
        if book.state == BookState.LIVE:
            self.snapshot_out(book, Flag.REFRESH)

    def on_snapshot(self, r, h, b):
        book = self.books.get(int(h["instrument"]))
        if book is None or not self.version(book, h):
            return
        if h["flags"] & Flag.ASKED:
            self.wake(book)
            self.join(book, r, b)
            return
        if not self.session(h):
            return
        self.connection(h, b["scope"], int(b["last_seq"]))
        self.belongs(book, h)
        book.backlog.clear()
        if self.replace(book, r, b, False):
            self.live(book, 0)

    def join(self, book, r, b):
        if book.state in (BookState.LIVE, BookState.CLOSED) or not book.facts["joins"] or book.connection in self.down:
            return
        last_seq, joining = int(b["last_seq"]), True
        for rule, scope, first, last, prev, *_ in book.backlog:
            if scope == Scope.INSTRUMENT:
                verdict = judge(rule, last_seq, joining, first, last, prev)
                if verdict == "gap":
                    self.state(book, book.state, Reason.SNAPSHOT_OLD)
                    self.want(book, self.now + book.backoff)
                    return
                if verdict == "apply":
                    last_seq, joining = last, False
        if not self.replace(book, r, b, True):
            return
        waiting, right = list(book.backlog), True
        for rule, scope, first, last, prev, bids, asks, sums in waiting:
            if scope == Scope.INSTRUMENT and judge(rule, book.last_seq, book.joining, first, last, prev) == "stale":
                book.stale_dropped += 1
                continue
            right = self.apply(book, last, bids, asks, sums) is not None
            if not right:
                break
        book.backlog.clear()
        if right:
            self.live(book, 0)

    def replace(self, book, r, b, joins):
        for side, levels in ((book.bids, r.bids), (book.asks, r.asks)):
            side.clear()
            for level in levels:
                if level["qty"]:
                    side[int(level["price"])] = int(level["qty"])
                else:
                    side.pop(int(level["price"]), None)
            while len(side) > book.depth(self.bound):
                side.popitem(-1)
        book.last_seq, book.joining = int(b["last_seq"]), joins
        return self.consistent(book, (int(b["has_checksum"]), int(b["checksum"])))

    def on_diff(self, r, h, b):
        book = self.books.get(int(h["instrument"]))
        if book is None or not self.version(book, h) or not self.session(h):
            return
        self.connection(h, b["scope"], int(b["last_seq"]))
        self.belongs(book, h)
        self.wake(book)
        rule, scope = SequenceRule(int(b["rule"])), Scope(int(b["scope"]))
        first, last, prev = int(b["first_seq"]), int(b["last_seq"]), int(b["prev_seq"])
        bids = [(int(x["price"]), int(x["qty"])) for x in r.bids]
        asks = [(int(x["price"]), int(x["qty"])) for x in r.asks]
        sums = (int(b["has_checksum"]), int(b["checksum"]))
        if book.state == BookState.LIVE:
            verdict = "apply"
            if scope == Scope.INSTRUMENT:
                verdict = judge(rule, book.last_seq, book.joining, first, last, prev)
            if verdict == "stale":
                book.stale_dropped += 1
                return
            if verdict == "apply":
                changed = self.apply(book, last, bids, asks, sums)
                if changed and any(changed):
                    self.out.append(("diff", book.id, first, last, prev, *changed))
                    self.bbo_out(book)
                return
            book.gaps += 1
            self.stale(book, Reason.GAP)
        if book.facts["joins"] and book.state != BookState.CLOSED:
            book.backlog.append((rule, scope, first, last, prev, bids, asks, sums))
            if len(book.backlog) > BACKLOG:
                book.backlog.popleft()

    def apply(self, book, last, bids, asks, sums):
        """What changed, (bids, asks), each sorted; None if the book is wrong after it."""
        changed = []
        for side, levels in ((book.bids, bids), (book.asks, asks)):
            before = dict(side)
            for price, qty in levels:
                if qty:
                    side[price] = qty
                else:
                    side.pop(price, None)
            while len(side) > book.depth(self.bound):
                side.popitem(-1)
            prices = sorted(before.keys() | set(side))
            changed.append(tuple((p, side.get(p, 0)) for p in prices if before.get(p, 0) != side.get(p, 0)))
        book.last_seq, book.joining = last, False
        book.updates += 1
        return tuple(changed) if self.consistent(book, sums) else None

    def consistent(self, book, sums):
        if sums[0] and book.facts["checksum_rule"] and book.checksum() != sums[1]:
            self.stale(book, Reason.CHECKSUM)
            return False
        if book.crossed():
            self.stale(book, Reason.CROSSED)
            return False
        return True

    def on_trade(self, r, h, b):
        book = self.books.get(int(h["instrument"]))
        if book is not None and self.session(h) and self.version(book, h):
            self.out.append(("trade", book.id, int(b["trade_id"]), int(b["price"]), int(b["qty"])))

    def on_bbo(self, r, h, b):
        if int(h["instrument"]) in self.books:
            self.session(h)

    def on_sequence(self, r, h, b):
        if self.session(h):
            self.connection(h, b["scope"], int(b["seq"]))

    def on_status(self, r, h, b):
        if h["instrument"] == NO_INSTRUMENT:
            self.silence(b["state"] == BookState.STALE)
            return
        book = self.books.get(int(h["instrument"]))
        if book is None:
            return
        if b["state"] == BookState.CLOSED:
            self.state(book, BookState.CLOSED, Reason(int(b["reason"])))
        elif b["state"] == BookState.STALE:
            self.stale(book, Reason(int(b["reason"])))

    def on_link(self, r, h, b):
        connection = int(h["connection"])
        if not self.session(h):
            return
        (self.down.discard if b["up"] else self.down.add)(connection)
        for book in self.books.values():
            if book.connection != connection:
                continue
            if not b["up"]:
                self.stale(book, Reason.LINK_DOWN)
            elif book.facts["joins"] and book.state not in (BookState.LIVE, BookState.CLOSED):
                self.want(book, self.now)

    def on_lost(self, r, h, b):
        scope, reason = Scope(int(b["scope"])), Reason(int(b["reason"])) or Reason.LOST
        for book in self.books.values():
            if scope == Scope.INSTRUMENT and book.id != h["instrument"]:
                continue
            if scope == Scope.CONNECTION and book.connection != h["connection"]:
                continue
            book.backlog.clear()
            self.stale(book, reason)
        for connection in list(self.numbers):
            if scope == Scope.ALL or (scope == Scope.CONNECTION and connection == h["connection"]):
                del self.numbers[connection]
                self.judged.pop(connection, None)

    def on_answer(self, r, h, b):
        if b["outcome"] == Outcome.DONE:
            return
        for book in self.books.values():
            if book.request_id and book.request_id == b["request_id"]:
                book.request_id = 0
                if book.state == BookState.RESYNCING:
                    self.state(book, BookState.STALE, book.reason)

    # -- what a record must pass

    def version(self, book, h):
        if int(h["version"]) == book.version:
            return True
        self.stale(book, Reason.BAD_MESSAGE)
        return False

    def session(self, h):
        connection, session = int(h["connection"]), int(h["session"])
        if connection == NO_CONNECTION:
            return True
        known = self.sessions.setdefault(connection, session)
        if session <= known:
            return session == known
        self.sessions[connection] = session
        self.down.discard(connection)
        self.numbers.pop(connection, None)
        self.judged.pop(connection, None)
        for book in self.books.values():
            if book.connection != connection or book.state == BookState.CLOSED:
                continue
            book.bids.clear()
            book.asks.clear()
            book.backlog.clear()
            book.last_seq, book.joining, book.silenced, book.request_id = 0, False, False, 0
            self.state(book, BookState.BUILDING, Reason.SESSION)
            book.request_due, book.backoff = NEVER, S
            if book.facts["joins"]:
                self.want(book, self.now)
        return True

    def connection(self, h, scope, seq):
        """The numbers of the connection: anything but the next one is a gap, judged once a message."""
        connection, raw_seq = int(h["connection"]), int(h["raw_seq"])
        if scope != Scope.CONNECTION or connection == NO_CONNECTION:
            return
        if raw_seq and self.judged.get(connection) == raw_seq:
            return
        right = self.numbers.get(connection, seq - 1) == seq - 1
        self.judged[connection], self.numbers[connection] = raw_seq, seq
        if right:
            return
        for book in self.books.values():
            if book.connection == connection:
                book.backlog.clear()
                book.gaps += book.state == BookState.LIVE or book.silenced
                self.stale(book, Reason.GAP)

    @staticmethod
    def belongs(book, h):
        if h["connection"] != NO_CONNECTION:
            book.connection, book.session = int(h["connection"]), int(h["session"])

    # -- states

    def state(self, book, state, reason):
        if (book.state, book.reason) == (state, reason):
            return
        book.state, book.reason = state, reason
        if state != BookState.LIVE:
            book.refresh_due = NEVER
        if state == BookState.CLOSED:
            book.request_due = NEVER
        self.out.append(("status", book.id, int(state), int(reason), book.last_seq))

    def stale(self, book, reason):
        if book.state == BookState.CLOSED:
            return
        was_live, book.silenced = book.state == BookState.LIVE, False
        self.state(book, BookState.STALE, reason)
        if book.connection in self.down:
            book.request_due = NEVER
            return
        due = self.now
        if was_live:
            if self.now - book.live_since < 10 * S and reason in (Reason.CROSSED, Reason.CHECKSUM):
                due += book.backoff
                book.backoff = min(2 * book.backoff, 30 * S)
            else:
                book.backoff = S
        self.want(book, due)

    def live(self, book, flags):
        self.snapshot_out(book, flags)
        book.silenced = False
        if book.state != BookState.LIVE:
            book.resyncs += book.has_lived
            book.has_lived = True
            book.live_since = self.now
            self.state(book, BookState.LIVE, Reason.NONE)
            self.schedule(book)
        book.request_due, book.request_id = NEVER, 0
        self.bbo_out(book)

    def schedule(self, book):
        offset = REFRESH_NS * (book.id * 0x9E3779B9 % 2**32) >> 32
        turn = self.now - self.now % REFRESH_NS + offset
        book.refresh_due = turn if turn > self.now else turn + REFRESH_NS

    # -- requests

    def want(self, book, due):
        if self.asks and book.request_due == NEVER:
            book.request_due = due

    def ask_due(self):
        for book in self.books.values():
            if book.request_due > self.now or self.paced - self.interval * (self.burst - 1) > self.now:
                continue
            self.paced = max(self.paced, self.now) + self.interval
            kind = RequestKind.SNAPSHOT if book.facts["joins"] else RequestKind.RESYNC
            self.requests.append((self.next_id, int(kind), int(book.reason), book.facts["symbol"]))
            book.request_id = self.next_id
            self.next_id += 1
            book.request_due = self.now + book.backoff
            book.backoff = min(2 * book.backoff, 30 * S)
            if book.state == BookState.STALE:
                self.state(book, BookState.RESYNCING, book.reason)

    # -- out

    def snapshot_out(self, book, flags):
        self.out.append(("snapshot", book.id, int(flags), book.last_seq, *book.levels()))

    def bbo_out(self, book):
        if book.bbo != book.best():
            book.bbo = book.best()
            self.out.append(("bbo", book.id, book.last_seq, *book.bbo))


def plain(record: bytes) -> tuple:
    """A record of the native books in the form that PlainBooks gives."""
    r = parse(record)
    h, b, name = r.header, r.body, r.type.name.lower()
    head = (name, int(h["instrument"]))

    def levels(side):
        return tuple((int(x["price"]), int(x["qty"])) for x in side)

    if r.type is RecordType.INSTRUMENT:
        return (*head, int(h["version"]), r.symbol)
    if r.type is RecordType.STATUS:
        return (*head, int(b["state"]), int(b["reason"]), int(b["last_seq"]))
    if r.type is RecordType.SNAPSHOT:
        return (*head, int(h["flags"]), int(b["last_seq"]), levels(r.bids), levels(r.asks))
    if r.type is RecordType.DIFF:
        numbers = (int(b["first_seq"]), int(b["last_seq"]), int(b["prev_seq"]))
        return (*head, *numbers, tuple(sorted(levels(r.bids))), tuple(sorted(levels(r.asks))))
    if r.type is RecordType.BBO:
        return (*head, *(int(b[n]) for n in ("last_seq", "bid_price", "bid_qty", "ask_price", "ask_qty")))
    assert r.type is RecordType.TRADE
    return (*head, int(b["trade_id"]), int(b["price"]), int(b["qty"]))


@dataclass
class Feed:
    """One instrument as its venue sends it."""

    id: int
    symbol: str
    connection: int
    rule: SequenceRule
    scope: Scope = Scope.INSTRUMENT
    joins: bool = False
    depth: int = 0
    truncates: bool = False
    checksum: bool = False
    price_scale: int = 0
    qty_scale: int = 0
    version: int = 1
    seq: int = 1000
    held: list = field(default_factory=list)  # snapshots on their way


class Flow:
    def __init__(self, seed: int, model: PlainBooks) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.trouble = self.random.choice([0.005, 0.03, 0.12])
        self.feeds = [
            Feed(0, "RANGE", 0, SequenceRule.RANGE, joins=True),
            Feed(1, "CHAIN", 0, SequenceRule.CHAIN, joins=True, depth=6, truncates=True),
            Feed(2, "NONE", 1, SequenceRule.NONE, depth=5, truncates=True, checksum=True),
            Feed(3, "STEP-A", 2, SequenceRule.STEP, Scope.CONNECTION),
            Feed(5, "STEP-B", 2, SequenceRule.STEP, Scope.CONNECTION),
            Feed(6, "LINK", 1, SequenceRule.CHAIN),
        ]
        self.sessions = [1, 1, 1]
        self.counts = [100, 100, 100]  # the connections' own numbers
        self.ring_seq, self.raw_seq, self.epoch = 0, 0, 1
        self.now = 1_700_000_000 * S
        self.waiting = [self.instrument(feed) for feed in self.feeds]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def build(self, kind, body=None, *, new_raw=True, connection=NO_CONNECTION, **rest):
        self.raw_seq += new_raw
        session = self.sessions[connection] if connection != NO_CONNECTION else 0
        rest.setdefault("session", session)
        header = {"raw_seq": self.raw_seq, "connection": connection, "origin_ns": 1, "recv_ns": self.now}
        return kind, body, header | rest

    @staticmethod
    def of(feed):
        return {"instrument": feed.id, "version": feed.version, "connection": feed.connection}

    def instrument(self, feed):
        body = {
            "symbol": feed.symbol.encode(), "depth": feed.depth, "price_scale": feed.price_scale,
            "qty_scale": feed.qty_scale, "rule": feed.rule, "scope": feed.scope, "checksum_rule": int(feed.checksum),
            "truncates": feed.truncates, "joins": feed.joins,
        }  # fmt: skip
        return self.build(
            RecordType.INSTRUMENT, body, instrument=feed.id, version=feed.version, connection=feed.connection
        )

    def side(self, feed, sign, count):
        levels = []
        for _ in range(count):
            distance = self.random.randrange(1, 14)
            if self.chance(self.trouble / 20):
                distance = -self.random.randrange(0, 3)
            qty = 0 if self.chance(0.45) else self.random.randrange(1, 40)
            qty = min(qty * 10**feed.qty_scale, INT64_MAX)
            levels.append(((100 + sign * distance) * 10**feed.price_scale, qty))
        if self.chance(0.5):
            levels.sort()
        return levels

    def sums(self, feed, record):
        """The checksum that the venue would send with this message; sometimes a wrong one."""
        kind, body, rest = record
        book = self.model.books.get(feed.id)
        if not feed.checksum or book is None or self.chance(0.1):
            return
        sides = []
        for name, held in (("bids", book.bids), ("asks", book.asks)):
            side = held.copy() if kind is RecordType.DIFF else type(held)(held.key)
            for price, qty in rest[name]:
                if qty:
                    side[price] = qty
                else:
                    side.pop(price, None)
            while len(side) > feed.depth:
                side.popitem(-1)
            sides.append(side)
        value = PlainBook(0, {}, 0, 0, 0, bids=sides[0], asks=sides[1]).checksum()
        body |= {"has_checksum": 1, "checksum": value if self.chance(0.97) else value ^ 1}

    def book(self, feed, kind, first, last, prev, count, **rest):
        body = {"first_seq": first, "last_seq": last, "prev_seq": prev, "rule": feed.rule, "scope": feed.scope}
        record = self.build(
            kind, body, instrument=feed.id, version=feed.version, connection=rest.pop("connection", feed.connection),
            bids=self.side(feed, -1, count()), asks=self.side(feed, 1, count()), **rest,
        )  # fmt: skip
        self.sums(feed, record)
        return record

    def count_connection(self, feed):
        if feed.scope == Scope.CONNECTION:
            self.counts[feed.connection] += 1
            feed.seq = self.counts[feed.connection]

    def next(self):
        """Some records, as keyword sets for `build`."""
        rnd, feed = self.random, self.random.choice(self.feeds)
        if self.chance(self.trouble):
            return self.some_trouble(feed)
        what = rnd.random()
        if what < 0.75:
            return self.some_diff(feed)
        if what < 0.90:
            return self.some_snapshot(feed)
        if what < 0.94:
            body = {"trade_id": rnd.randrange(99), "price": 100, "qty": 3}
            return [self.build(RecordType.TRADE, body, **self.of(feed))]
        if what < 0.98:
            self.counts[2] += 1 if self.chance(0.95) else 2
            body = {"seq": self.counts[2], "rule": SequenceRule.STEP, "scope": Scope.CONNECTION}
            return [self.build(RecordType.SEQUENCE, body, connection=2)]
        body = {"bid_price": 99, "bid_qty": 1, "ask_price": 101, "ask_qty": 1}
        return [self.build(RecordType.BBO, body, **self.of(feed))]

    def some_diff(self, feed):
        prev = feed.seq
        if feed.scope == Scope.CONNECTION:
            self.count_connection(feed)
            first = feed.seq
        else:
            feed.seq += self.random.randrange(1, 4)
            first = prev + 1
        counts = [0, 1, 1, 2, 5, 20, 60]
        record = self.book(feed, RecordType.DIFF, first, feed.seq, prev, lambda: self.random.choice(counts))
        fault = self.random.random() * 0.03 / self.trouble
        if fault < 0.04:
            return []
        if fault < 0.07:
            return [record, self.again(record)]
        if fault < 0.09:
            return [*self.some_diff(feed), self.again(record)]
        if fault < 0.13 and feed.scope == Scope.CONNECTION:  # two events in one message
            other = self.book(
                feed, RecordType.DIFF, first, feed.seq, prev, lambda: 2, new_raw=False, flags=int(Flag.CONTINUED)
            )
            other[2]["raw_seq"] = record[2]["raw_seq"]
            return [record, other]
        if fault < 0.132:
            record[2]["version"] += 1
        return [record]

    def again(self, record):
        self.raw_seq += 1
        return record[0], record[1], {**record[2], "raw_seq": self.raw_seq}

    def some_snapshot(self, feed):
        def many():
            return self.random.randrange(0, 30)

        if not feed.joins:
            if feed.rule is SequenceRule.NONE or self.chance(0.7):
                self.count_connection(feed)
            snapshot = self.book(feed, RecordType.SNAPSHOT, feed.seq, feed.seq, 0, many)
            keep = [(p, q) for p, q in snapshot[2]["bids"] if p < 100 * 10**feed.price_scale]
            if feed.checksum:
                snapshot[1].pop("has_checksum", None)
            snapshot[2]["bids"] = keep
            return [snapshot]
        if self.chance(0.7) or not feed.held:
            seq = feed.seq - self.random.choice([0, 0, 0, 1, 2])
            connection = self.random.choice([feed.connection, NO_CONNECTION])
            record = self.book(
                feed, RecordType.SNAPSHOT, seq, seq, 0, many, flags=int(Flag.ASKED), connection=connection
            )
            record[2]["bids"] = [(p, q) for p, q in record[2]["bids"] if p < 100 * 10**feed.price_scale]
            record[2]["asks"] = [(p, q) for p, q in record[2]["asks"] if p >= 100 * 10**feed.price_scale]
            feed.held.append((feed.version, record))
        if self.chance(0.3):
            return []
        version, record = feed.held.pop(0)
        return [record] if version == feed.version else []

    def some_trouble(self, feed):
        what = self.random.randrange(12)
        connection = feed.connection
        if what == 0:
            self.ring_seq += 1
            return []
        if what == 1 and self.chance(0.3):
            self.epoch += 1
            return []
        if what == 2:
            scope = self.random.choice(list(Scope))
            reason = self.random.choice([Reason.NONE, Reason.OVERSIZE, Reason.BAD_MESSAGE])
            body = {"count": 1, "scope": scope, "reason": reason}
            return [self.build(RecordType.LOST, body, instrument=feed.id, connection=connection)]
        if what == 3:
            down = self.build(RecordType.LINK, {"up": 0}, connection=connection)
            if self.chance(0.8):
                self.sessions[connection] += 1
            up = self.build(RecordType.LINK, {"up": 1}, connection=connection)
            return [down, up] if self.chance(0.8) else [down]
        if what == 4:
            self.sessions[connection] += 1
            return []
        if what == 5 and feed.price_scale < 14 and feed.qty_scale < 40:
            feed.version += 1
            feed.price_scale += self.random.choice([0, 1, 2])
            feed.qty_scale += self.random.choice([0, 1, 1, 1, 1, 16])
            return [self.instrument(feed)]
        if what == 6:
            request_id = max(0, self.model.next_id - self.random.randrange(1, 4))
            body = {"request_id": request_id, "outcome": self.random.randrange(3)}
            return [self.build(RecordType.ANSWER, body)]
        if what == 7 and self.chance(0.5):
            body = {"state": self.random.choice([BookState.LIVE, BookState.STALE]), "reason": Reason.UPSTREAM_SILENT}
            return [self.build(RecordType.STATUS, body)]
        if what == 7:
            state = self.random.choice([BookState.CLOSED, BookState.STALE])
            body = {"state": state, "reason": Reason.BAD_MESSAGE}
            return [self.build(RecordType.STATUS, body, instrument=feed.id, version=feed.version)]
        if what == 8:
            self.now += self.random.randrange(1, 15) * S
            return []
        if what == 9:
            return [self.instrument(feed)]
        if what == 10:
            old = self.book(feed, RecordType.DIFF, 1, 1, 0, lambda: 1)
            old[2]["session"] -= 1
            return [old] if old[2]["session"] >= 0 else []
        self.counts[2] += self.random.randrange(2)
        return [self.build(RecordType.TRADE, {"trade_id": 7}, instrument=77, connection=connection)]

    def number(self, kind, body, rest):
        self.ring_seq += 1
        return build(kind, body, ring_seq=self.ring_seq, epoch=self.epoch, **rest)


def same_after_each(seed: int, steps: int, *, asks: bool = True, bound: int = 65536, burst: int = 20) -> PlainBooks:
    model = PlainBooks(bound, asks, burst=burst)
    native = _native.Books(
        depth=bound, asks=asks, requests_burst=burst, backlog_records=BACKLOG, refresh_ns=REFRESH_NS, first_request_id=1
    )
    flow = Flow(seed, model)
    waiting = deque(flow.waiting)
    for step in range(steps):
        flow.now += flow.random.randrange(0, S // 10)
        if not waiting:
            waiting.extend(flow.next())
        told = f"seed {seed}, step {step}"
        if flow.chance(0.03):
            silent = flow.chance(0.5)
            assert [plain(x) for x in native.upstream_silent(silent, flow.now)] == model.silent(silent, flow.now), told
        if flow.chance(0.2):
            assert [plain(x) for x in native.tick(flow.now)] == model.tick(flow.now), told
        if waiting:
            record = flow.number(*waiting.popleft())
            assert [plain(x) for x in native.feed(record, flow.now)] == model.feed(record, flow.now), told
        assert native.take_requests() == model.requests, told
        model.requests.clear()
        native.check()
    for book in model.books.values():
        facts = native.describe_one(book.id, 100)
        assert (tuple(facts["bids"]), tuple(facts["asks"])) == book.levels(), seed
        for name in ("last_seq", "updates", "stale_dropped", "gaps", "resyncs", "state"):
            assert facts[name] == getattr(book, name), (seed, book.id, name)
        assert facts["backlog"] == len(book.backlog)
    return model


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_native_books_equal_the_plain_ones_after_every_record(seed):
    same_after_each(seed, 400)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_books_of_a_replay_ask_for_nothing_and_stay_equal(seed):
    assert not same_after_each(seed, 400, asks=False).requests


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_books_with_a_small_bound_of_levels_stay_equal(seed, bound):
    same_after_each(seed, 300, bound=bound, burst=1)


def test_random_flow_reaches_every_state_and_reason(monkeypatch):
    """The flow is worth something only if it reaches what it is to test."""
    reached = set()
    plain_state = PlainBooks.state

    def state(self, book, state, reason):
        reached.add((state, reason))
        plain_state(self, book, state, reason)

    monkeypatch.setattr(PlainBooks, "state", state)
    books = [book for seed in range(8) for book in same_after_each(seed, 3000).books.values()]
    for counter in ("updates", "gaps", "resyncs", "stale_dropped"):
        assert sum(getattr(book, counter) for book in books) > 100, counter
    assert {state for state, _ in reached} == set(BookState)
    assert {reason for _, reason in reached} >= set(Reason) - {
        Reason.RESTARTED,
        Reason.BUFFER_FULL,
        Reason.UPSTREAM_CLOSED,
    }
