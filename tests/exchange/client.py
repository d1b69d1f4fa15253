"""A plain client of the simulated venue for tests: a WebSocket, GETs, and a deadline on every wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from exchange.rebuild import Json, KrakenBook, SpotBook
from exchange.running import get
from exchange.server import Server, Settings

WAIT_S = 5.0


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Server]:
    """A venue in this event loop, on a free port."""
    server = Server(Settings(**settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: Server, path: str, **query: object) -> Any:
    """The JSON of a GET; raises urllib.error.HTTPError for an error status."""
    return await asyncio.to_thread(get, server.addresses()["rest"], path, **query)


@asynccontextmanager
async def websocket(server: Server, path: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        server.addresses()["ws"] + path, compression=None, max_size=None, ping_interval=None, close_timeout=1
    ) as client:
        yield client


async def receive(client: ClientConnection, wait_s: float = WAIT_S) -> Json:
    """The next message. Raises TimeoutError."""
    message: Json = json.loads(await asyncio.wait_for(client.recv(), wait_s))
    return message


async def receive_until(client: ClientConnection, wanted: Callable[[Json], bool], wait_s: float = WAIT_S) -> list[Json]:
    """Messages up to and with the first that is `wanted`. Raises TimeoutError."""
    messages: list[Json] = []
    async with asyncio.timeout(wait_s):
        while True:
            messages.append(await receive(client))
            if wanted(messages[-1]):
                return messages


async def send(client: ClientConnection, **message: object) -> None:
    await client.send(json.dumps(message))


async def follow(client: ClientConnection, book: SpotBook, last_seq: int, wait_s: float = WAIT_S) -> None:
    """Feed raw depth diffs into `book` until it has `last_seq`."""
    async with asyncio.timeout(wait_s):
        while book.last_seq < last_seq:
            message = await receive(client)
            data = message.get("data", message)
            if data.get("e") == "depthUpdate":
                book.diff(data)


async def follow_kraken(client: ClientConnection, book: KrakenBook, messages: int, wait_s: float = WAIT_S) -> None:
    """Feed `messages` book messages into `book`."""
    async with asyncio.timeout(wait_s):
        while messages:
            message = json.loads(await client.recv(), parse_float=str, parse_int=str)
            if message.get("channel") == "book":
                book.message(message["type"], message["data"][0])
                messages -= 1
