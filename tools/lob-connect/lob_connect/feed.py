"""A live feed: the connections of one venue, its REST side, and what requests make of both."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine
from typing import Any

from lob.records import Outcome
from lob.stage import Stage
from lob.venues.venue import Metadata, Venue
from lob_connect.backoff import Budget
from lob_connect.raw import RawRing
from lob_connect.requests import Request, Requests, Result
from lob_connect.rest import Rest, RestError
from lob_connect.session import NotConnected, Session, Terms
from lob_connect.settings import Settings
from lob_connect.socket import Transport

METADATA_AGAIN_S = 60.0
UP_WAIT_S = 10.0
MANIFEST_S = 1.0
FIRST_SNAPSHOT_S = 1.5  # after the subscription: the diffs that it must join are flowing by then
REQUESTS_A_TICK = 256


class UnlistedSymbol(Exception):
    """The venue has no such instrument."""


class Feed:
    """Everything between the network and the raw ring."""

    def __init__(
        self,
        stage: Stage,
        raw: RawRing,
        venue: Venue,
        settings: Settings,
        context: ssl.SSLContext,
        transport: Transport,
    ) -> None:
        self.sessions: list[Session] = []
        self._stage = stage
        self._raw = raw
        self._venue = venue
        self._rest_url = settings.rest_url or venue.rest_url
        self._depth = venue.default_depth if settings.depth is None else settings.depth
        self._per_connection = settings.streams_per_connection or venue.limits.streams_per_connection
        self._terms = Terms(
            venue,
            settings.url or venue.ws_url,
            self._depth,
            context,
            Budget(venue.limits.connect_per_min),
            stage.say,
            transport,
        )
        self.rest = Rest(venue.limits.rest_weight_per_min, context, stage.say)
        self.requests = Requests(self, self._answer, self._spawn)
        self._queue = raw.ring.requests
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._next_manifest_s = 0.0
        self._pings: list[float | None] = []
        for first in range(0, len(settings.symbols), self._per_connection):
            self._add_session(list(settings.symbols[first : first + self._per_connection]))
        raw.write_manifest()

    def _add_session(self, symbols: list[str]) -> Session:
        connection = self._raw.add_connection(f"ws-{len(self.sessions)}", symbols=symbols)
        connection.url = self._venue.connect_url(self._terms.base_url, symbols)
        self._raw.declare(connection, self._venue.name)
        session = Session(connection, self._terms, self._raw)
        session.on_subscribed = self._ask_for_first_snapshots
        self.sessions.append(session)
        return session

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error

    # -- the life of it -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Metadata, then all connections. Raises UnlistedSymbol."""
        symbols = [symbol for session in self.sessions for symbol in session.connection.symbols]
        if not await self._metadata(symbols, attempts=1):
            self._spawn(self._metadata_later(symbols))
        for session in self.sessions:
            self._spawn(session.run())

    def tick(self) -> None:
        """Every 10 ms or so: requests, clocks, what the ring is owed. Raises what broke a task."""
        if self._broken is not None:
            raise self._broken
        for _ in range(REQUESTS_A_TICK):
            request = self._queue.take()
            if request is None:
                break
            self.requests.take(Request(*request))
        for session in self.sessions:
            if session.failure is not None:
                raise session.failure
            session.tick()
        self._raw.tick()
        now = time.monotonic()
        if now >= self._next_manifest_s:
            self._next_manifest_s = now + MANIFEST_S
            pings = [session.connection.ping_ms for session in self.sessions]
            if pings != self._pings:
                self._pings = pings
                self._raw.write_manifest()

    async def stop(self) -> None:
        """Close the connections and end all tasks. Returns when the last link record is in the ring."""
        closing = [asyncio.ensure_future(session.close()) for session in self.sessions]
        await asyncio.gather(*closing, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def reconnects(self) -> int:
        return sum(session.reconnects for session in self.sessions)

    # -- metadata -----------------------------------------------------------------------------------------------------

    async def _metadata(self, symbols: list[str], *, attempts: int) -> bool:
        """Ask for the instruments' steps; False if they cannot be had now. Raises UnlistedSymbol."""
        asked = self._venue.metadata_request(self._rest_url, symbols)
        if asked is None:
            return True
        url, weight = asked
        try:
            answer = await self.rest.get(url, weight, attempts=attempts)
            listed = self._venue.metadata(answer.body)
        except RestError as error:
            # 400 is what venues say of a symbol that they do not have; which one, they do not always say.
            if error.status == 400:
                upper = [symbol.upper() for symbol in symbols if symbol.upper() != symbol]
                hint = f"; did you mean {', '.join(upper)}?" if upper else ""
                raise UnlistedSymbol(
                    f"{self._venue.name} does not accept {', '.join(symbols)}: {error}{hint}"
                ) from None
            self._stage.say(f"no metadata of {self._venue.name} ({error}); scales come from the digits until then")
            return False
        except ValueError as error:
            self._stage.say(f"metadata of {self._venue.name} that cannot be read ({error})")
            return False
        self._raw.http(self._connection_of(symbols[0]), answer.recv_ns, answer.origin_ns, url, answer.body)
        self._check_listed(symbols, listed)
        return True

    def _check_listed(self, symbols: list[str], listed: list[Metadata]) -> None:
        by_symbol = {entry.symbol: entry for entry in listed}
        for symbol in symbols:
            entry = by_symbol.get(symbol)
            if entry is None:
                hint = f"; did you mean {symbol.upper()}?" if symbol.upper() in by_symbol else ""
                raise UnlistedSymbol(f"{self._venue.name} does not list {symbol}{hint}")
            if not entry.trading:
                self._stage.say(f"{symbol} is not trading at {self._venue.name} now")

    async def _metadata_later(self, symbols: list[str]) -> None:
        while True:
            await asyncio.sleep(METADATA_AGAIN_S)
            try:
                if await self._metadata(symbols, attempts=1):
                    return
            except UnlistedSymbol as error:
                self._stage.say(str(error))  # the feed runs: one bad symbol must not end the good ones
                return

    # -- requests (requests.Work) -------------------------------------------------------------------------------------

    def _session_of(self, symbol: str) -> Session | None:
        return next((session for session in self.sessions if symbol in session.connection.symbols), None)

    def _connection_of(self, symbol: str) -> Any:
        session = self._session_of(symbol) or self.sessions[0]
        return session.connection

    def knows(self, symbol: str) -> bool:
        return self._session_of(symbol) is not None

    async def snapshot(self, symbol: str) -> Result:
        """By REST; or by a new subscription of this one symbol, where the snapshot is in the stream."""
        session = self._session_of(symbol)
        if session is None:
            return Outcome.REFUSED, "not subscribed"
        try:
            await asyncio.wait_for(session.up.wait(), UP_WAIT_S)
        except TimeoutError:
            return Outcome.FAILED, "not connected"
        if self._venue.snapshot == "stream":
            try:
                await session.unsubscribe([symbol])
                await session.subscribe([symbol])
            except NotConnected:
                return Outcome.FAILED, "not connected"
            return Outcome.DONE, "subscribed anew"
        url, weight = self._venue.snapshot_request(self._rest_url, symbol, self._depth)
        try:
            answer = await self.rest.get(url, weight)
        except RestError as error:
            return (Outcome.REFUSED if 400 <= error.status < 429 else Outcome.FAILED), str(error)
        self._raw.http(session.connection, answer.recv_ns, answer.origin_ns, url, answer.body)
        return Outcome.DONE, ""

    async def reconnect(self, symbol: str) -> Result:
        """The connection of the symbol, or all of them."""
        chosen = [session for session in self.sessions if not symbol or symbol in session.connection.symbols]
        ended = sum(session.reconnect("asked to reconnect") for session in chosen)
        return (Outcome.DONE, f"{ended} connection(s)") if ended else (Outcome.FAILED, "not connected")

    async def subscribe(self, symbol: str) -> Result:
        """One more symbol, on the first connection that has room, or on a new one."""
        asked = self._venue.metadata_request(self._rest_url, [symbol])
        if asked is not None:
            try:
                answer = await self.rest.get(*asked)
                if symbol not in {entry.symbol for entry in self._venue.metadata(answer.body)}:
                    return Outcome.REFUSED, f"{self._venue.name} does not list it"
                self._raw.http(self._connection_of(symbol), answer.recv_ns, answer.origin_ns, asked[0], answer.body)
            except RestError as error:
                return (Outcome.REFUSED if 400 <= error.status < 429 else Outcome.FAILED), str(error)
            except ValueError as error:
                return Outcome.FAILED, str(error)
        for session in self.sessions:
            if len(session.connection.symbols) < self._per_connection:
                session.connection.symbols.append(symbol)
                self._raw.write_manifest()
                try:
                    await session.subscribe([symbol])
                except NotConnected:
                    return Outcome.DONE, "follows with the next connection"
                return Outcome.DONE, session.connection.label
        session = self._add_session([symbol])
        self._raw.write_manifest()
        self._spawn(session.run())
        return Outcome.DONE, session.connection.label

    async def unsubscribe(self, symbol: str) -> Result:
        session = self._session_of(symbol)
        if session is None:
            return Outcome.REFUSED, "not subscribed"
        session.connection.symbols.remove(symbol)
        self._raw.write_manifest()
        try:
            await session.unsubscribe([symbol])
        except NotConnected:
            pass  # the next connection does not ask for it
        return Outcome.DONE, ""

    def _answer(self, request: Request, outcome: Outcome, detail: str) -> None:
        session = self._session_of(request.symbol)
        connection = None if session is None else session.connection
        self._raw.answer(connection, time.time_ns(), request.id, request.kind, outcome, request.symbol, detail)

    def _ask_for_first_snapshots(self, session: Session) -> None:
        """With nobody downstream to ask (print mode), ask ourselves, once a session: a recording needs snapshots."""
        if self._stage.mode != "print" or self._venue.snapshot != "rest":
            return

        async def ask() -> None:
            await asyncio.sleep(FIRST_SNAPSHOT_S)
            for symbol in list(session.connection.symbols):
                outcome, detail = await self.snapshot(symbol)
                if outcome is not Outcome.DONE:
                    self._stage.say(f"no snapshot of {symbol}: {detail}")

        self._spawn(ask())
