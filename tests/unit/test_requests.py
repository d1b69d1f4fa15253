"""lob_connect/requests.py: coalescing, refusals, and an answer for every id."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lob.records import Outcome, RequestKind
from lob_connect.requests import WAITING_MAX, Request, Requests, Result


class Office:
    """Does what is asked when `gate` opens; notes what was done and what was answered."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.done: list[tuple[str, str]] = []
        self.answers: list[tuple[int, Outcome, str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.requests = Requests(self, self._answer, self._spawn)

    def _answer(self, request: Request, outcome: Outcome, detail: str) -> None:
        self.answers.append((request.id, outcome, detail))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def settle(self) -> None:
        self.gate.set()
        await asyncio.gather(*self.tasks)

    def ask(self, number: int, kind: int, symbol: str) -> None:
        self.requests.take(Request(number, kind, 0, symbol))

    def knows(self, symbol: str) -> bool:
        return symbol in ("BTC", "ETH")

    async def _do(self, what: str, symbol: str) -> Result:
        await self.gate.wait()
        self.done.append((what, symbol))
        return Outcome.DONE, what

    async def snapshot(self, symbol: str) -> Result:
        return await self._do("snapshot", symbol)

    async def reconnect(self, symbol: str) -> Result:
        return await self._do("reconnect", symbol)

    async def subscribe(self, symbol: str) -> Result:
        return await self._do("subscribe", symbol)

    async def unsubscribe(self, symbol: str) -> Result:
        return await self._do("unsubscribe", symbol)


def test_two_that_want_the_same_are_one_and_both_are_answered() -> None:
    async def body() -> None:
        office = Office()
        office.ask(1, RequestKind.RESYNC, "BTC")
        office.ask(2, RequestKind.SNAPSHOT, "BTC")
        office.ask(3, RequestKind.RESYNC, "ETH")
        await office.settle()
        assert sorted(office.done) == [("snapshot", "BTC"), ("snapshot", "ETH")]
        assert sorted(office.answers) == [(n, Outcome.DONE, "snapshot") for n in (1, 2, 3)]
        assert (office.requests.taken, office.requests.coalesced) == (3, 1)
        office.ask(4, RequestKind.RESYNC, "BTC")  # the first is answered: this one is new
        await office.settle()
        assert len(office.done) == 3

    asyncio.run(body())


@pytest.mark.parametrize(
    ("kind", "symbol", "why"),
    [
        (RequestKind.RESYNC, "DOGE", "not subscribed"),
        (RequestKind.UNSUBSCRIBE, "DOGE", "not subscribed"),
        (RequestKind.RECONNECT, "DOGE", "not subscribed"),
        (RequestKind.SUBSCRIBE, "BTC", "subscribed already"),
        (RequestKind.RESYNC, "", "no symbol given"),
        (77, "BTC", "no request of kind 77"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(kind: int, symbol: str, why: str) -> None:
    async def body() -> None:
        office = Office()
        office.ask(5, kind, symbol)
        assert office.answers == [(5, Outcome.REFUSED, why)]
        assert not office.tasks

    asyncio.run(body())


def test_reconnect_without_a_symbol_means_all() -> None:
    async def body() -> None:
        office = Office()
        office.ask(6, RequestKind.RECONNECT, "")
        await office.settle()
        assert office.done == [("reconnect", "")]

    asyncio.run(body())


def test_ids_that_wait_for_one_answer_are_bounded() -> None:
    async def body() -> None:
        office = Office()
        for number in range(WAITING_MAX + 1):
            office.ask(number, RequestKind.RESYNC, "BTC")
        assert [(n, o) for n, o, _ in office.answers] == [(WAITING_MAX, Outcome.REFUSED)]
        await office.settle()
        assert len(office.answers) == WAITING_MAX + 1

    asyncio.run(body())


def test_work_that_was_cancelled_is_answered_failed() -> None:
    async def body() -> None:
        office = Office()
        office.ask(1, RequestKind.RESYNC, "BTC")
        await asyncio.sleep(0)
        office.tasks[0].cancel()
        await asyncio.gather(*office.tasks, return_exceptions=True)
        assert office.answers == [(1, Outcome.FAILED, "stopped")]

    asyncio.run(body())
