"""The simulated venue on a socket: the loop that makes events, the WebSockets, the plain GETs."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from exchange import control
from exchange.binance import BinanceSession, Dialect, Spot
from exchange.binance_usdm import UsdM
from exchange.coinbase import CoinbaseSession
from exchange.faults import SnapshotFaults
from exchange.kraken import KrakenSession
from exchange.link import Link
from exchange.rest import SPOT_BUDGET, Rest
from exchange.session import Session
from exchange.times import SECOND
from exchange.venue import Venue

LOOP_S = 0.005
CATCH_UP_S = 0.25
USDM_PREFIXES = ("/fstream", "/public", "/market")


@dataclass(frozen=True)
class Settings:
    """`rate` is events a second of each symbol, `levels` a side; 0 switches max_age_s and message_limit off."""

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 7
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    rate: float = 200.0
    levels: int = 500
    max_age_s: float = 0.0
    weight: int = SPOT_BUDGET
    message_limit: int = 0
    ping_s: float = 20.0
    pong_s: float = 60.0
    tls: tuple[str, str] | None = None


class Server:
    """Everything in one thread: an event, its messages and a snapshot can never be seen half done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rate = settings.rate
        self.venue = Venue(settings.symbols, settings.seed, settings.levels)
        self.snapshot_faults = SnapshotFaults()
        self.rest = Rest(self.venue, self.snapshot_faults, settings.weight)
        self.links: dict[int, Link] = {}
        self.paused: set[str] = set()
        self.refuse_until_ns = 0
        self.refuse_status = 503
        self.port = 0
        self._opened = 0
        self._refused = 0
        self._events = 0
        self._http: dict[str, int] = {}
        self._sent = [0, 0]
        self._started_ns = self.now_ns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._websockets: WebSocketServer | None = None

    @staticmethod
    def now_ns() -> int:
        return time.time_ns()

    async def start(self) -> None:
        """Listen and begin to trade; `port` is known afterwards."""
        context = None
        if self.settings.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.settings.tls)
        self._websockets = await serve(
            self._handle,
            self.settings.host,
            self.settings.port,
            ssl=context,
            process_request=self._request,
            compression=None,
            ping_interval=None,
            open_timeout=120,
            close_timeout=1,
            server_header=None,
        )
        self.port = next(iter(self._websockets.sockets)).getsockname()[1]
        self.spawn(self._trade())

    async def stop(self) -> None:
        """Announce it, close every connection, end every task."""
        for link in self.links.values():
            link.emit(link.session.shutdown(self.now_ns()))
            link.flush()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._websockets:
            self._websockets.close()
            await self._websockets.wait_closed()

    def addresses(self) -> dict[str, str]:
        """Where each protocol is found; WebSocket paths are to be appended to `ws` and `usdm_ws`."""
        secure = "s" if self.settings.tls else ""
        at = f"{self.settings.host}:{self.port}"
        ws, rest = f"ws{secure}://{at}", f"http{secure}://{at}"
        return {
            "ws": ws,
            "rest": rest,
            "kraken_ws": f"{ws}/kraken/v2",
            "usdm_ws": f"{ws}/fstream",
            "usdm_rest": rest,
            "coinbase_ws": f"{ws}/coinbase",
            "control": f"{rest}/control",
            "truth": f"{rest}/truth",
        }

    def stats(self) -> dict[str, Any]:
        messages = self._sent[0] + sum(link.messages for link in self.links.values())
        sent_bytes = self._sent[1] + sum(link.bytes for link in self.links.values())
        return {
            "uptime_s": (self.now_ns() - self._started_ns) / SECOND,
            "seed": self.settings.seed,
            "rate": self.rate,
            "events": self._events,
            "connections": len(self.links),
            "connections_opened": self._opened,
            "connections_refused": self._refused,
            "messages_sent": messages,
            "bytes_sent": sent_bytes,
            "http": self._http,
            "weight_used": {api: weights.used for api, weights in self.rest.weights.items()},
            "books": {
                market.instrument.symbol: {
                    "id": market.seq,
                    "levels": [len(keys) for keys in market.keys],
                    "orders": len(market.orders),
                    "trades": market.next_trade_id,
                }
                for market in self.venue.markets
            },
        }

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def step(self, symbol: str) -> None:
        """One event of one market, told to every session; `flush` sends it."""
        event = self.venue.step(symbol, self.now_ns())
        self._events += 1
        market = self.venue.flows[symbol].market
        for link in self.links.values():
            if outs := link.session.event(market, event):
                link.emit(outs)

    def flush(self) -> None:
        for link in list(self.links.values()):
            link.flush()

    async def _trade(self) -> None:
        """Make the events that are due, then what sessions owe by the clock, then write."""
        credit = dict.fromkeys(self.venue.flows, 0.0)
        before = time.monotonic()
        while True:
            await asyncio.sleep(LOOP_S)
            now = time.monotonic()
            due = self.rate * min(now - before, CATCH_UP_S)
            before = now
            for symbol in credit:
                if symbol in self.paused:
                    continue
                credit[symbol] += due
                count = int(credit[symbol])
                credit[symbol] -= count
                for _ in range(count):
                    self.step(symbol)
            now_ns = self.now_ns()
            for link in list(self.links.values()):
                link.wake(now_ns)
                if outs := link.session.tick(now_ns):
                    link.emit(outs)
                link.flush()

    def _session(self, path: str, query: dict[str, str]) -> Session | None:
        """The protocol behind a WebSocket path, None if there is none."""
        now_ns = self.now_ns()
        if path == "/kraken/v2":
            return KrakenSession(self.venue, (self._opened + 1) * 2_950_167_385_101_907, now_ns)
        if path == "/coinbase":
            return CoinbaseSession(self.venue, now_ns)
        dialect: Dialect = Spot()
        for prefix in USDM_PREFIXES:
            if path.startswith(prefix + "/"):
                dialect, path = UsdM(), path.removeprefix(prefix)
        if path == "/stream":
            streams = query.get("streams", "")
            return BinanceSession(self.venue, dialect, filter(None, streams.split("/")), True, now_ns)
        if path == "/ws" or path.startswith("/ws/"):
            streams = path.removeprefix("/ws")
            return BinanceSession(self.venue, dialect, filter(None, streams.split("/")), False, now_ns)
        return None

    async def _request(self, websocket: ServerConnection, request: Request) -> Response | None:
        """Answer plain GETs; let a WebSocket through (None) if its path exists and nothing refuses it."""
        path, query = _split(request.path)
        if "Upgrade" not in request.headers:
            return await self._get(path, query)
        if self.now_ns() < self.refuse_until_ns:
            self._refused += 1
            if not self.refuse_status:
                websocket.transport.abort()
            return _response(self.refuse_status or 503, b"{}", {})
        if self._session(path, query) is None:
            return _response(404, b'{"error":"no such stream path"}', {})
        return None

    async def _get(self, path: str, query: dict[str, str]) -> Response:
        area = path.split("/")[1]
        self._http[area] = self._http.get(area, 0) + 1
        if area in ("control", "truth"):
            status, answer = control.answer(self, path, query)
            return _response(status, orjson.dumps(answer), {})
        found = self.rest.answer(path, query, self.now_ns())
        if found is None:
            return _response(404, b'{"error":"no such path"}', {})
        if found.delay_s:
            await asyncio.sleep(found.delay_s)
        return _response(found.status, found.body, found.headers)

    async def _handle(self, websocket: ServerConnection) -> None:
        assert websocket.request is not None
        session = self._session(*_split(websocket.request.path))
        assert session is not None, "checked before the handshake"
        self._opened += 1
        link = Link(self._opened, websocket, session, self.now_ns())
        link.emit(session.connected(self.now_ns()))
        link.flush()
        self.links[link.ident] = link
        tasks = [self.spawn(link.keep_alive(self.settings.ping_s, self.settings.pong_s))]
        if self.settings.max_age_s:
            tasks.append(self.spawn(link.expire(self.settings.max_age_s)))
        limit = self.settings.message_limit
        try:
            async for message in websocket:
                now_ns = self.now_ns()
                if limit and link.too_fast(now_ns, limit):
                    await websocket.close(1008, "Too many requests")
                    break
                text = message if isinstance(message, str) else message.decode(errors="replace")
                link.emit(session.receive(text, now_ns))
                link.flush()
        except ConnectionClosed:
            pass
        finally:
            del self.links[link.ident]
            self._sent[0] += link.messages
            self._sent[1] += link.bytes
            for task in tasks:
                task.cancel()


def _split(target: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(target)
    return unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))


def _response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    fixed = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, phrase, Headers({**fixed, **headers}), body)
