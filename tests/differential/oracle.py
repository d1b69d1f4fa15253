"""A plain, slow decoder over the same shape tables as the native one: json for the text, Decimal for the numbers.

It shares no code with tools/lob-parse. `decode` gives what a message says as a list of dicts, or why it says nothing.
Numbers are `Shown`: the exact value, and how many decimals the text shows.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, NamedTuple

import orjson

from lob.venues.shape import ABSENT, Each, ExchTime, LevelObject, Levels, Obj, Rule, Shape, Tag, TakerSide

NESTING_MAX = 64
NUMBER_MAX_CHARS = 64
MAGNITUDE_MAX = 300
INT64_MAX = 2**63 - 1
EXACT = Context(prec=400)
NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
INTEGER = re.compile(r"0|[1-9][0-9]{0,19}")
RFC3339 = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Shown(NamedTuple):
    """An exact number: `value`, and the decimals that its text shows (None: it was written with an exponent)."""

    value: Decimal
    decimals: int | None


class BadMessage(Exception):
    """The message gives no event."""


class Bare(str):
    """A number that stands without quotes."""


class Pairs(list[tuple[str, Any]]):
    """An object: its keys in order, doubles included."""


@dataclass
class Fields:
    """What a scope holds. A field whose value is BAD was there and could not be read."""

    parent: Fields | None
    known: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    levels: tuple[list[tuple[Shown, Shown]], list[tuple[Shown, Shown]]] = field(default_factory=lambda: ([], []))
    has_levels: bool = False
    levels_bad: bool = False

    def find(self, name: str) -> Any:
        scope: Fields | None = self
        while scope is not None:
            if name in scope.known:
                return scope.known[name]
            scope = scope.parent
        return None

    def tag(self, name: str) -> str | None:
        scope: Fields | None = self
        while scope is not None:
            if name in scope.tags:
                return scope.tags[name]
            scope = scope.parent
        return None


BAD = object()
DECIMALS = {"bid_price", "bid_qty", "ask_price", "ask_qty", "price", "qty"}
INTEGERS = {"first_seq", "last_seq", "prev_seq", "trade_id", "checksum"}


def number(text: str) -> Shown:
    """Raises ValueError for a text that is none, or that no int64 mantissa can hold."""
    match = NUMBER.fullmatch(text)
    if match is None or len(text) > NUMBER_MAX_CHARS:
        raise ValueError(text)
    sign, whole, part, power = match.groups(default="")
    digits = int(whole + part)
    exponent = int(power or 0) - len(part)
    while digits and digits % 10 == 0:
        digits //= 10
        exponent += 1
    if digits and (exponent > 400 or digits * 10 ** max(exponent, 0) > INT64_MAX or exponent < -255):
        raise ValueError(text)
    value = Decimal((1 if sign else 0, tuple(map(int, str(digits))), exponent if digits else 0))
    return Shown(value, None if power else len(part))


def integer(text: str) -> int:
    if INTEGER.fullmatch(text) is None or int(text) >= 2**64:
        raise ValueError(text)
    return int(text)


def unix_ns(text: str, unit: str) -> int:
    if unit != "rfc3339":
        ns = integer(text) * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
        if ns > INT64_MAX:
            raise ValueError(text)
        return ns
    match = RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(text)
    minute = datetime.strptime(match[1], "%Y-%m-%dT%H:%M").replace(tzinfo=UTC)
    if not 1970 <= minute.year <= 2199 or int(match[2]) > 60:
        raise ValueError(text)
    seconds = (minute - EPOCH) // timedelta(seconds=1) + int(match[2])
    return seconds * 10**9 + int((match[3] or "").ljust(9, "0"))


def parse(frame: bytes) -> Any:
    """The JSON value, strictly. Raises BadMessage."""
    try:
        orjson.loads(frame)
        value = json.loads(
            frame.decode("utf-8"), object_pairs_hook=Pairs, parse_float=Bare, parse_int=Bare, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise BadMessage(str(error)) from None
    _check(value, 0)
    return value


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _check(value: Any, depth: int) -> None:
    """Our own limits: nesting, the length and size of bare numbers, no half surrogates."""
    if isinstance(value, Bare):
        match = NUMBER.fullmatch(value)
        if match is None or len(value) > NUMBER_MAX_CHARS:
            raise BadMessage(f"number {value}")
        _, whole, part, power = match.groups(default="")
        significant = (whole + part).lstrip("0")
        if significant and len(significant) - len(part) - 1 + int(power or 0) >= MAGNITUDE_MAX:
            raise BadMessage(f"number {value}")
    elif isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, list):
        if depth + 1 > NESTING_MAX:
            raise BadMessage("nesting")
        for item in value:
            for each in item if isinstance(value, Pairs) else (item,):
                _check(each, depth + 1)


class Reader:
    def __init__(self) -> None:
        self.scopes: list[Fields] = []

    def open_scope(self, parent: Fields | None) -> Fields:
        self.scopes.append(Fields(parent))
        return self.scopes[-1]

    def object(self, shape: Obj, pairs: Pairs, scope: Fields) -> None:
        seen = set()
        for key, value in pairs:
            if key not in shape.keys:
                continue
            if key in seen:
                raise BadMessage(f"key {key} twice")
            seen.add(key)
            meanings = shape.keys[key]
            both = isinstance(meanings, tuple)
            for meaning in meanings if isinstance(meanings, tuple) else (meanings,):
                self.value(meaning, value, scope)
                no_levels = isinstance(value, Pairs) or not (both or value is None or isinstance(value, list))
                if isinstance(meaning, Levels) and no_levels:
                    scope.has_levels = scope.levels_bad = True

    def value(self, meaning: Any, value: Any, scope: Fields) -> None:
        if isinstance(meaning, Obj):
            if isinstance(value, Pairs):
                self.object(meaning, value, self.open_scope(scope) if meaning.scope else scope)
        elif isinstance(meaning, Each):
            for item in value if isinstance(value, list) and not isinstance(value, Pairs) else ():
                if isinstance(item, Pairs):
                    self.object(meaning.item, item, self.open_scope(scope) if meaning.item.scope else scope)
        elif isinstance(meaning, Levels):
            if isinstance(value, list) and not isinstance(value, Pairs):
                self.levels(meaning, value, scope)
        elif not isinstance(value, list) and value is not None:
            self.scalar(meaning, value, scope)

    def scalar(self, meaning: Any, value: Any, scope: Fields) -> None:
        quoted = isinstance(value, str) and not isinstance(value, Bare)
        text = value if isinstance(value, str) else None
        try:
            if isinstance(meaning, Tag):
                if quoted:
                    scope.tags[meaning.name] = value
            elif isinstance(meaning, TakerSide):
                if quoted:
                    scope.known["taker_side"] = {meaning.buy: 0, meaning.sell: 1}.get(value, BAD)
            elif isinstance(meaning, ExchTime):
                if text is not None and (quoted or meaning.unit != "rfc3339"):
                    scope.known["exch_time"] = BAD
                    scope.known["exch_time"] = unix_ns(text, meaning.unit)
            elif meaning.op == "symbol":
                if quoted:
                    scope.known["symbol"] = value
            elif meaning.op == "buyer_is_maker":
                if isinstance(value, bool):
                    scope.known["buyer_is_maker"] = value
            elif text is not None:
                scope.known[meaning.op] = BAD
                found: Any = number(text) if meaning.op in DECIMALS else integer(text)
                if meaning.op != "checksum" or found < 2**32:
                    scope.known[meaning.op] = found
        except ValueError:
            pass

    def levels(self, meaning: Levels, items: list[Any], scope: Fields) -> None:
        scope.has_levels = True
        for item in items:
            side = meaning.side
            price = qty = None
            if isinstance(meaning.item, LevelObject):
                if not isinstance(item, Pairs):
                    scope.levels_bad = True
                    continue
                found: dict[str, Any] = {}
                for key, value in item:
                    if key in (meaning.item.price, meaning.item.qty, meaning.item.side):
                        if key in found:
                            raise BadMessage(f"key {key} twice")
                        found[key] = value
                price, qty = found.get(meaning.item.price), found.get(meaning.item.qty)
                told = found.get(meaning.item.side) if meaning.item.side is not None else None
                if isinstance(told, str) and not isinstance(told, Bare):
                    side = {meaning.item.bid: 0, meaning.item.ask: 1}.get(told)  # type: ignore[assignment]
            elif isinstance(item, list) and not isinstance(item, Pairs) and len(item) >= 2:
                price, qty = item[0], item[1]
            try:
                if side is None or not isinstance(price, str) or not isinstance(qty, str):
                    raise ValueError("no level")
                level = (number(price), number(qty))
                if level[1].value < 0:
                    raise ValueError("negative quantity")
                scope.levels[side].append(level)
            except ValueError:
                scope.levels_bad = True


def _matches(rule: Rule, scope: Fields) -> bool:
    for name in rule.has:
        if not (scope.has_levels if name == "levels" else name in scope.known):
            return False
    for name, wanted in rule.when.items():
        tag = scope.tag(name)
        if wanted is ABSENT:
            if tag is not None:
                return False
        elif tag is None or (tag != wanted if isinstance(wanted, str) else tag not in wanted):
            return False
    return True


def _get(scope: Fields, name: str, needed: bool, default: Any) -> Any:
    value = scope.find(name)
    if value is BAD:
        raise BadMessage(f"{name} cannot be read")
    if value is None:
        if needed:
            raise BadMessage(f"no {name}")
        return default
    return value


ZERO = Shown(Decimal(0), 0)


def event_of(scope: Fields, kind: str, rule: str, symbol: str) -> dict[str, Any]:
    """What a scope of that kind says. Raises BadMessage."""
    event: dict[str, Any] = {"kind": kind, "symbol": _get(scope, "symbol", False, symbol)}
    if not 0 < len(event["symbol"].encode()) < 64:
        raise BadMessage("symbol")
    event["exch_ns"] = _get(scope, "exch_time", False, 0)
    if kind == "trade":
        event["trade_id"] = _get(scope, "trade_id", False, 0)
        for name in ("price", "qty"):
            event[name] = _get(scope, name, True, None)
        side = _get(scope, "taker_side", False, None)
        if side is None:
            maker = scope.find("buyer_is_maker")
            side = 2 if maker is None else int(maker)
        event["taker_side"] = side
    elif kind == "bbo":
        event["last_seq"] = _get(scope, "last_seq", False, 0)
        for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"):
            event[name] = _get(scope, name, False, ZERO)
        for side in ("bid", "ask"):
            if scope.find(f"{side}_price") is None:
                event[f"{side}_qty"] = ZERO
    else:
        if scope.levels_bad:
            raise BadMessage("levels")
        diff = kind == "diff"
        last = event["last_seq"] = _get(scope, "last_seq", rule != "none", 0)
        event["first_seq"] = _get(scope, "first_seq", rule == "range", last) if diff else last
        event["prev_seq"] = _get(scope, "prev_seq", rule == "chain", 0) if diff else 0
        if rule == "step":
            event["prev_seq"] = max(last - 1, 0)
        event["checksum"] = _get(scope, "checksum", False, None)
        event["bids"], event["asks"] = scope.levels
    for name in ("qty", "bid_qty", "ask_qty"):
        if name in event and event[name].value < 0:
            raise BadMessage(f"negative {name}")
    return event


def decode(shape: Shape, frame: bytes, rule: str, symbol: str = "") -> tuple[str, list[dict[str, Any]]]:
    """("ok" | "unknown_frame" | "bad", events)."""
    reader = Reader()
    try:
        value = parse(frame)
        if isinstance(value, Pairs):
            reader.object(shape.root, value, reader.open_scope(None))
        events, known = [], False
        for scope in reader.scopes:
            kind = next((each.kind for each in shape.rules if _matches(each, scope)), None)
            known = known or kind is not None
            if kind not in (None, "ignore"):
                events.append(event_of(scope, str(kind), rule, symbol))
        return ("ok" if known else "unknown_frame"), events
    except BadMessage:
        return "bad", []


def same_number(native: tuple[int, int], plain: Shown) -> bool:
    """Whether a native (mantissa, decimals) is that number, with the decimals as shown where that was possible."""
    mantissa, decimals = native
    if EXACT.scaleb(Decimal(mantissa), -decimals) != plain.value:
        return False
    fits = plain.decimals is None or plain.decimals > 18 or abs(plain.value) * 10**plain.decimals > INT64_MAX
    return fits or decimals == plain.decimals


def same_event(native: dict[str, Any], plain: dict[str, Any]) -> bool:
    if native.keys() != plain.keys():
        return False
    for name, value in plain.items():
        got = native[name]
        if isinstance(value, Shown):
            if not same_number(got, value):
                return False
        elif name in ("bids", "asks"):
            if len(got) != len(value):
                return False
            for (price, qty), (plain_price, plain_qty) in zip(got, value, strict=True):
                if not (same_number(price, plain_price) and same_number(qty, plain_qty)):
                    return False
        elif got != value:
            return False
    return True


def same(native: tuple[str, list[dict[str, Any]]], plain: tuple[str, list[dict[str, Any]]]) -> bool:
    """Whether both decoders say the same of a message; they need not agree why it is bad."""
    status = native[0] if native[0] in ("ok", "unknown_frame") else "bad"
    if status != plain[0] or len(native[1]) != len(plain[1]):
        return False
    return all(same_event(*each) for each in zip(native[1], plain[1], strict=True))
