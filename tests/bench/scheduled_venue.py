"""A venue on the loopback that sends on schedule: what lob-connect reads in benchmarks of the whole way."""

from __future__ import annotations

import itertools
import json
import queue
import threading
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from bench.scheduled import Flow, wait_until
from lob import _native


class ScheduledVenue:
    """A WebSocket server on the loopback that sends on schedule, and answers the two REST requests of a start."""

    def __init__(self, flows: list[Flow]) -> None:
        """The messages of the flows in turn."""
        self.flows = {flow.symbol: flow for flow in flows}
        self.orders: queue.Queue[tuple[float, int] | None] = queue.Queue()
        self.due_ns: list[int] = []
        self.sent_count = 0
        self.sent = threading.Event()
        self.server = serve(self._serve, "127.0.0.1", 0, process_request=self._rest, compression=None)
        self.port = self.server.socket.getsockname()[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _rest(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        if url.path == "/api/v3/depth":
            flow = self.flows[parse_qs(url.query)["symbol"][0]]
            return connection.respond(HTTPStatus.OK, flow.snapshot()[1].decode())
        if url.path == "/api/v3/exchangeInfo":
            filters = [
                {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
            ]
            symbols = [{"symbol": symbol, "status": "TRADING", "filters": filters} for symbol in self.flows]
            return connection.respond(HTTPStatus.OK, json.dumps({"symbols": symbols}))
        return None

    def _serve(self, connection: ServerConnection) -> None:
        flows = itertools.cycle(self.flows.values())
        while (order := self.orders.get()) is not None:
            per_s, count = order
            start_ns = _native.mono_ns() + 2_000_000
            for number in range(count):
                text = next(flows).message().decode()
                due_ns = start_ns + int(number * 1e9 / per_s)
                wait_until(due_ns)
                self.due_ns.append(due_ns)
                connection.send(text)
            self.sent_count += count
            self.sent.set()

    def send(self, per_s: float, count: int) -> npt.NDArray[np.int64]:
        """When each of the messages was due."""
        self.sent.clear()
        self.due_ns.clear()
        self.orders.put((per_s, count))
        assert self.sent.wait(60), "nobody has connected"
        return np.array(self.due_ns, np.int64)

    @property
    def options(self) -> list[str]:
        """Of a lob-connect that is to read from here."""
        here = f"127.0.0.1:{self.port}"
        return ["binance", *self.flows, "--url", f"ws://{here}", "--rest-url", f"http://{here}"]

    def close(self) -> None:
        self.orders.put(None)
        self.server.shutdown()
