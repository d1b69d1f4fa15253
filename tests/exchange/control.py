"""The plain GETs that tests use: `/control/<verb>` orders misbehaviour, `/truth/<what>` tells the true book.

Everything answers one JSON object. Symbols may be written as any venue writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from exchange.binance_usdm import futures_id, seq_of
from exchange.engine import Market
from exchange.faults import Rule, SnapshotFault, Verb
from exchange.instrument import stripped_text, units_of
from exchange.journal import SeqNotKept, side_of
from exchange.times import SECOND

if TYPE_CHECKING:
    from exchange.link import Link
    from exchange.server import Server

Query = Mapping[str, str]
Json = dict[str, Any]


class BadQuery(ValueError):
    """A control or truth request that cannot be carried out; the text says why."""


def answer(server: Server, path: str, query: Query) -> tuple[int, Json]:
    """(HTTP status, answer) for `/control/...` and `/truth/...`."""
    _, area, verb = [*path.split("/", 2), ""][:3]
    table = {"control": CONTROL, "truth": TRUTH}.get(area, {})
    if verb == "help" or verb not in table:
        texts = {f"/{area}/{name}": (handler.__doc__ or "").strip() for name, handler in table.items()}
        return (200 if verb == "help" else 404), {"verbs": texts, "selection": SELECTION}
    try:
        return 200, table[verb](server, query)
    except (BadQuery, SeqNotKept, ValueError) as error:
        return 400, {"error": str(error)}


SELECTION = "conn=ID and venue=NAME choose connections (default all); symbol= and stream= choose messages"


# --- control ---------------------------------------------------------------------------------------------------------


def drop(server: Server, query: Query) -> Json:
    """n=1 [kind=depth|trade|ticker|snapshot|other|all] [symbol] [stream] [conn] [venue]: lose the next n messages."""
    return _rule(server, query, "drop")


def dup(server: Server, query: Query) -> Json:
    """As drop: send each of the next n messages twice."""
    return _rule(server, query, "dup")


def swap(server: Server, query: Query) -> Json:
    """As drop: n times, let the next two messages change places."""
    return _rule(server, query, "swap")


def cut(server: Server, query: Query) -> Json:
    """[conn] [venue] [code]: end connections at once; with code= by a close frame of that code."""
    links = _links(server, query)
    for link in links:
        if "code" in query:
            server.spawn(link.websocket.close(_int(query, "code"), "cut"))
        else:
            link.cut()
    return _named(links)


def stall(server: Server, query: Query) -> Json:
    """t=SECONDS [conn] [venue]: keep sockets open, send and read nothing; what was due comes late."""
    links, until_ns = _links(server, query), server.now_ns() + int(_float(query, "t") * SECOND)
    for link in links:
        link.flush()
        link.stall(until_ns)
    return _named(links)


def refuse(server: Server, query: Query) -> Json:
    """t=SECONDS [status=503]: refuse new WebSockets; status=0 resets the TCP connection. t=0 ends it."""
    server.refuse_until_ns = server.now_ns() + int(_float(query, "t") * SECOND)
    server.refuse_status = _int(query, "status", 503)
    return {"refuse_s": _float(query, "t"), "status": server.refuse_status}


def garbage(server: Server, query: Query) -> Json:
    """[text=...|hex=...] [times=1] [conn] [venue]: send this frame (default: half a JSON message), repeated within."""
    links = _links(server, query)
    half = '{"e":"depthUpdate","E":17'
    data = bytes.fromhex(query["hex"]) if "hex" in query else query.get("text", half)
    data *= _int(query, "times", 1)
    for link in links:
        link.send(data)
        link.flush()
    return _named(links)


def stale(server: Server, query: Query) -> Json:
    """k=IDS n=1 [symbol]: the next n REST snapshots are k ids old."""
    return _snapshot(server, SnapshotFault(_int(query, "n", 1), _symbol(server, query), ids_old=_int(query, "k")))


def slow(server: Server, query: Query) -> Json:
    """t=SECONDS n=1 [symbol]: the next n REST snapshots are sent that much after they were taken."""
    return _snapshot(server, SnapshotFault(_int(query, "n", 1), _symbol(server, query), delay_s=_float(query, "t")))


def error(server: Server, query: Query) -> Json:
    """status=500|429|418 n=1 [retry_after=SECONDS] [symbol]: the next n REST snapshots fail."""
    return _snapshot(
        server,
        SnapshotFault(
            _int(query, "n", 1),
            _symbol(server, query),
            status=_int(query, "status", 500),
            retry_after_s=_int(query, "retry_after", 0),
        ),
    )


def weight(server: Server, query: Query) -> Json:
    """budget=N [api=/api/v3]: REST request weight a minute for all clients; the count begins anew."""
    api = query.get("api", "/api/v3")
    if api not in server.rest.weights:
        raise BadQuery(f"api is one of {' '.join(server.rest.weights)}")
    weights = server.rest.weights[api]
    weights.budget, weights.used = _int(query, "budget", weights.budget), 0
    return {"api": api, "budget": weights.budget}


def pause(server: Server, query: Query) -> Json:
    """[symbol]: no more events; answers with the ids at which the books stand."""
    server.paused |= _symbols(server, query)
    return checkpoint(server, query)


def resume(server: Server, query: Query) -> Json:
    """[symbol]: go on."""
    server.paused -= _symbols(server, query)
    return checkpoint(server, query)


def step(server: Server, query: Query) -> Json:
    """n=1 [symbol]: n events at once, also while paused."""
    for symbol in sorted(_symbols(server, query)):
        for _ in range(_int(query, "n", 1)):
            server.step(symbol)
    server.flush()
    return checkpoint(server, query)


def rate(server: Server, query: Query) -> Json:
    """rate=EVENTS_A_SECOND: of each symbol."""
    server.rate = _float(query, "rate")
    return {"rate": server.rate}


def checkpoint(server: Server, query: Query) -> Json:
    """[symbol]: the current update id of each book."""
    ids = {symbol: server.venue.flows[symbol].market.seq for symbol in sorted(_symbols(server, query))}
    return {"ids": ids, "time_ns": server.now_ns(), "paused": sorted(server.paused)}


def connections(server: Server, query: Query) -> Json:
    """[conn] [venue]: the open connections, their subscriptions and the faults that are still to come."""
    return {
        "connections": [
            {
                "conn": link.ident,
                "venue": link.session.venue,
                "streams": link.session.streams(),
                "age_s": (server.now_ns() - link.opened_ns) / SECOND,
                "messages": link.messages,
                "bytes": link.bytes,
                "stalled": link.stalled,
                "faults_left": {rule.verb: rule.left for rule in link.faults.rules},
                "faults_done": link.faults.done,
            }
            for link in _links(server, query)
        ]
    }


def shutdown(server: Server, query: Query) -> Json:
    """t=SECONDS [conn] [venue]: announce serverShutdown (Binance), then close the connections after t."""
    links = _links(server, query)
    delay_s = _float(query, "t")

    async def close(link: Link) -> None:
        await asyncio.sleep(delay_s)
        await link.websocket.close(1001, "going away")

    for link in links:
        link.emit(link.session.shutdown(server.now_ns()))
        link.flush()
        server.spawn(close(link))
    return _named(links)


def clear(server: Server, query: Query) -> Json:
    """Forget all faults that are still to come, and every refusal and pause."""
    for link in server.links.values():
        link.faults.rules.clear()
    server.snapshot_faults.faults.clear()
    server.refuse_until_ns = 0
    server.paused.clear()
    return {}


# --- truth -----------------------------------------------------------------------------------------------------------


def book(server: Server, query: Query) -> Json:
    """symbol [id=now] [depth=all] [venue=binance-usdm]: the true book at an id, exact, without trailing zeros."""
    market = _market(server, query)
    futures = query.get("venue") == "binance-usdm"
    seq = _int(query, "id", futures_id(market.seq) if futures else market.seq)
    levels = market.journal.at(seq_of(seq) if futures else seq)
    depth = _int(query, "depth", len(levels))
    return {
        "symbol": market.instrument.symbol,
        "id": seq,
        "bids": _texts(market, side_of(levels, True, depth)),
        "asks": _texts(market, side_of(levels, False, depth)),
    }


def last(server: Server, query: Query) -> Json:
    """symbol: the id now, the oldest id that is kept, and the best levels."""
    market = _market(server, query)
    inst, best = market.instrument, market.best()
    return {
        "symbol": inst.symbol,
        "pair": inst.pair,
        "product": inst.product,
        "id": market.seq,
        "usdm_id": futures_id(market.seq),
        "first_id": market.journal.first_seq,
        "bid": _texts(market, [(best.bid_ticks, best.bid_lots)])[0],
        "ask": _texts(market, [(best.ask_ticks, best.ask_lots)])[0],
        "tick_size": inst.tick_size,
        "lot_size": inst.lot_size,
    }


def contains(server: Server, query: Query) -> Json:
    """symbol top={"bids":[[price,qty]..],"asks":[..]} (1, 5 or 10 levels a side): did the book ever have this top?"""
    market = _market(server, query)
    try:
        top = orjson.loads(query["top"])
        bids, asks = ([_level(market, level) for level in top[side]] for side in ("bids", "asks"))
    except (KeyError, TypeError, orjson.JSONDecodeError) as cause:
        raise BadQuery('top is {"bids":[["price","qty"],..],"asks":[..]} with texts, best first') from cause
    seq = server.venue.tops[market.instrument.symbol].find(bids, asks)
    if seq is None:
        return {"found": False}
    return {"found": True, "id": seq, "age_events": market.seq - seq}


def stats(server: Server, query: Query) -> Json:
    """Counts since the start."""
    return server.stats()


CONTROL: dict[str, Callable[[Server, Query], Json]] = {
    handler.__name__: handler
    for handler in (
        *(drop, dup, swap, cut, stall, refuse, garbage, stale, slow, error, weight),
        *(pause, resume, step, rate, checkpoint, connections, shutdown, clear),
    )
}
TRUTH: dict[str, Callable[[Server, Query], Json]] = {h.__name__: h for h in (book, last, contains, stats)}


# --- reading the query -----------------------------------------------------------------------------------------------


def _int(query: Query, name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None:
        if default is None:
            raise BadQuery(f"{name}= is missing")
        return default
    try:
        return int(text)
    except ValueError as cause:
        raise BadQuery(f"{name}={text}: not a whole number") from cause


def _float(query: Query, name: str) -> float:
    try:
        return float(query[name])
    except KeyError as cause:
        raise BadQuery(f"{name}= is missing") from cause
    except ValueError as cause:
        raise BadQuery(f"{name}={query[name]}: not a number") from cause


def _market(server: Server, query: Query) -> Market:
    name = query.get("symbol")
    if name is None and len(server.venue.flows) == 1:
        return server.venue.markets[0]
    market = server.venue.find(name or "")
    if market is None:
        raise BadQuery(f"symbol={name}: not offered here; there are {' '.join(server.venue.flows)}")
    return market


def _symbol(server: Server, query: Query) -> str:
    return _market(server, query).instrument.symbol if "symbol" in query else ""


def _symbols(server: Server, query: Query) -> set[str]:
    return {_symbol(server, query)} if "symbol" in query else set(server.venue.flows)


def _links(server: Server, query: Query) -> list[Link]:
    conn = _int(query, "conn", 0)
    return [
        link
        for link in server.links.values()
        if conn in (0, link.ident) and query.get("venue") in (None, link.session.venue)
    ]


def _named(links: list[Link]) -> Json:
    return {"connections": [link.ident for link in links]}


def _rule(server: Server, query: Query, verb: Verb) -> Json:
    count = _int(query, "n", 1)
    if count < 1:
        raise BadQuery(f"n={count}: at least 1")
    links = _links(server, query)
    for link in links:
        kind, stream = query.get("kind", "depth"), query.get("stream", "")
        link.faults.rules.append(Rule(verb, count, kind, _symbol(server, query), stream))
    return _named(links)


def _snapshot(server: Server, fault: SnapshotFault) -> Json:
    if fault.left < 1:
        raise BadQuery(f"n={fault.left}: at least 1")
    server.snapshot_faults.faults.append(fault)
    return {"snapshots": fault.left, "symbol": fault.symbol or "any"}


def _texts(market: Market, levels: list[tuple[int, int]]) -> list[list[str]]:
    inst = market.instrument
    return [
        [stripped_text(ticks, inst.price_decimals), stripped_text(lots, inst.lot_decimals)] for ticks, lots in levels
    ]


def _level(market: Market, level: list[str]) -> tuple[int, int]:
    inst = market.instrument
    return units_of(str(level[0]), inst.price_decimals), units_of(str(level[1]), inst.lot_decimals)
