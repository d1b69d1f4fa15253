"""GETs under the venue's limits: a weight budget a minute, and a pause for all when the venue asks for one.

urllib in a thread, not one more library: there are a few requests a minute, and what has to be fast (the stamp of the
answer) is taken in that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime

from lob_connect.backoff import Backoff, Budget
from lob_connect.session import sentence_of
from lob_connect.socket import USER_AGENT

BUDGET_SHARE = 0.8  # other programs of this host share the limit
TIMEOUT_S = 10.0
ATTEMPTS = 4
BODY_MAX_BYTES = 64 << 20
# When the venue says 429 or 418 without Retry-After. https://developers.binance.com/docs/binance-spot-api-docs/rest-api
PAUSE_S = {429: 60.0, 418: 120.0}
PAUSE_MAX_S = 300.0  # a longer one is told to the asker instead of waited for


class RestError(Exception):
    """A request that failed for good. `status` 0: no answer at all."""

    def __init__(self, status: int, why: str, body: bytes = b"") -> None:
        super().__init__(why)
        self.status, self.body = status, body


@dataclass(frozen=True)
class Answer:
    body: bytes
    recv_ns: int
    origin_ns: int


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Message
    answer: Answer


class Rest:
    """GETs for one venue."""

    def __init__(self, weight_per_min: int, context: ssl.SSLContext | None, say: Callable[[str], None]) -> None:
        self.requests = 0
        self._budget = Budget(weight_per_min * BUDGET_SHARE)
        self._context = context
        self._say = say
        self._paused_until_s = 0.0

    async def get(self, url: str, weight: int, *, attempts: int = ATTEMPTS) -> Answer:
        """The answer to a GET, waited for as long as limits and errors demand. Raises RestError."""
        backoff = Backoff(random.random)
        failures = 0
        while True:
            await self._wait_for_turn(weight)
            self.requests += 1
            try:
                reply = await self._in_thread(url)
            except (OSError, http.client.HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                why = sentence_of(reason) if isinstance(reason, BaseException) else str(reason)
                status = 0
            else:
                status = reply.status
                if status == 200:
                    return reply.answer
                if status in PAUSE_S:
                    self._pause(status, reply.headers)
                    continue
                why = f"HTTP {status}: {_text(reply.answer.body)}"
                if status < 500:
                    raise RestError(status, why, reply.answer.body)
            failures += 1
            if failures >= attempts:
                raise RestError(status, why)
            await asyncio.sleep(backoff.next_s())

    async def _wait_for_turn(self, weight: int) -> None:
        while True:
            now = time.monotonic()
            paused_s = self._paused_until_s - now
            if paused_s > PAUSE_MAX_S:
                raise RestError(429, f"the venue wants no request for {paused_s:.0f} s")
            wait_s = max(paused_s, self._budget.delay_s(now, weight))
            if wait_s <= 0:
                self._budget.spend(now, weight)
                return
            await asyncio.sleep(wait_s)

    def _pause(self, status: int, headers: Message) -> None:
        pause_s = retry_after_s(headers.get("Retry-After"), time.time())
        if pause_s is None:
            pause_s = PAUSE_S[status]
        self._paused_until_s = max(self._paused_until_s, time.monotonic() + pause_s)
        self._say(f"too many requests (HTTP {status}): none for {pause_s:.0f} s")

    async def _in_thread(self, url: str) -> _Reply:
        """`_fetch`, in a daemon thread: a stop does not wait for an answer that is still to come."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Reply] = loop.create_future()

        def settle(reply: _Reply | None, error: Exception | None) -> None:
            if future.done():
                return
            if reply is not None:
                future.set_result(reply)
            elif error is not None:
                future.set_exception(error)

        def work() -> None:
            reply: _Reply | None = None
            failure: Exception | None = None
            try:
                reply = self._fetch(url)
            except Exception as error:  # whatever it is, it is raised where it was asked for
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, reply, failure)

        threading.Thread(target=work, name="rest", daemon=True).start()
        return await future

    def _fetch(self, url: str) -> _Reply:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, "Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as response:
                return _reply(response.status, response.headers, response.read(BODY_MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error.headers, error.read(1 << 16))


def _reply(status: int, headers: Message, body: bytes) -> _Reply:
    return _Reply(status, headers, Answer(body, time.time_ns(), time.monotonic_ns()))


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None: not given, or unreadable."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except ValueError:
        return None


def _text(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())
