"""What the native parser asks the venue's Python code, rarely: messages we sent, URLs, acks, metadata.

The parser may ask about the same raw record twice (the output ring was full in between), so nothing here counts.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import InvalidOperation

from lob.units import decimals
from lob.venues.venue import Subscription, Venue

SCALE_MAX = 18
DEPTH_MAX = 2**32 - 1

Books = list[tuple[str, int]]


class VenueHooks:
    """The methods that `Parser` calls, by these names."""

    def __init__(
        self, venue: Venue, changed: Callable[[int], None], complain: Callable[[str], None] = lambda _: None
    ) -> None:
        """`changed(raw_seq)`: instruments were added or changed by that raw record, which is not committed yet."""
        self._venue = venue
        self.instruments_changed = changed
        self._complain = complain

    def sent(self, text: bytes) -> Books:
        return _books(self._venue.subscriptions(text.decode("utf-8", "replace")))

    def opened(self, url: bytes) -> Books:
        return _books(self._venue.url_subscriptions(url.decode("utf-8", "replace")))

    def control(self, frame: bytes) -> Books | None:
        control = self._venue.control(frame)
        return None if control is None else _books(control.subscribed)

    def http(self, url: bytes) -> tuple[str, str]:
        answer = self._venue.http_answer(url.decode("utf-8", "replace"))
        return ("", "") if answer is None else (answer.kind, answer.symbol)

    def metadata(self, body: bytes) -> list[tuple[str, int, int]]:
        """(symbol, price scale, quantity scale); a step that is not told counts as 1, the digits will raise it."""
        try:
            found = self._venue.metadata(body)
        except ValueError as error:
            self._complain(str(error))
            return []
        scales = []
        for each in found:
            try:
                price, qty = (decimals(step) if step else 0 for step in (each.tick_size, each.lot_size))
            except (ValueError, InvalidOperation):
                self._complain(f"{each.symbol}: steps {each.tick_size!r}, {each.lot_size!r} are no numbers")
                continue
            if max(price, qty) <= SCALE_MAX:
                scales.append((each.symbol, price, qty))
        return scales


def _books(subscriptions: list[Subscription] | tuple[Subscription, ...]) -> Books:
    return [(each.symbol, min(max(each.depth, 0), DEPTH_MAX)) for each in subscriptions]
