"""The language in which a venue's file says what its messages look like.

A *shape* is a tree of nodes: an `Obj` names the keys that matter and what each means; everything else is skipped.
lob-parse compiles the tree once and then decodes by it at native speed; the test oracle walks the same tree with
orjson and Decimal. Nothing here knows a venue.

How a message is read
- Each `Obj` with `scope=True` opens a scope: a set of fields (symbol, numbers, times, tags, levels). A field that
  a scope does not have is taken from the scope around it, also when it stands after it in the text: everything is
  resolved at the end of the message. The root is always a scope.
- At the end, each scope is tried against the venue's `Rule`s in order; the first that matches says what the scope
  is. A message in which no scope matches any rule is *unknown* and goes to the venue's Python code.
- A key may mean two things by the type of its value: `"b": (Levels(BID), BidPrice())` is an array of levels or a
  price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

BID: Literal[0] = 0
ASK: Literal[1] = 1


class Absent(Enum):
    """In `Rule.when`: the tag must not be there."""

    ABSENT = 0


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Leaf:
    """A scalar with a meaning. `op` is the field of the scope that takes it."""

    op: str


def Symbol() -> Leaf:
    """The venue's name of the instrument, a string."""
    return Leaf("symbol")


def First() -> Leaf:
    """Number of the first event folded into the message (exchanges call it U, first, sequenceStart)."""
    return Leaf("first_seq")


def Last() -> Leaf:
    """Number of the book after the message."""
    return Leaf("last_seq")


def Prev() -> Leaf:
    """Number of the message before."""
    return Leaf("prev_seq")


def Checksum() -> Leaf:
    """Unsigned 32-bit checksum of the book after the message."""
    return Leaf("checksum")


def BidPrice() -> Leaf:
    return Leaf("bid_price")


def BidQty() -> Leaf:
    return Leaf("bid_qty")


def AskPrice() -> Leaf:
    return Leaf("ask_price")


def AskQty() -> Leaf:
    return Leaf("ask_qty")


def Price() -> Leaf:
    """Price of a trade."""
    return Leaf("price")


def Qty() -> Leaf:
    """Quantity of a trade."""
    return Leaf("qty")


def TradeId() -> Leaf:
    """Number of a trade, an integer, bare or in quotes."""
    return Leaf("trade_id")


def BuyerIsMaker() -> Leaf:
    """A boolean: true means that the taker sold."""
    return Leaf("buyer_is_maker")


@dataclass(frozen=True)
class ExchTime:
    """The venue's event time: an integer of that unit, or RFC 3339 text in UTC with up to nine decimals."""

    unit: Literal["s", "ms", "us", "ns", "rfc3339"]
    op: str = field(default="exch_time", init=False)


@dataclass(frozen=True)
class Tag:
    """A string that `Rule.when` can ask for by `name`. At most eight names in a venue."""

    name: str
    op: str = field(default="tag", init=False)


@dataclass(frozen=True)
class TakerSide:
    """A string that says which side took: texts for buy and for sell."""

    buy: str
    sell: str
    op: str = field(default="taker_side", init=False)


@dataclass(frozen=True)
class Pair:
    """A level as an array: price, quantity, and perhaps more that is skipped."""

    op: str = field(default="pair", init=False)


@dataclass(frozen=True)
class LevelObject:
    """A level as an object. With `side` the object itself tells its side, by the texts `bid` and `ask`."""

    price: str
    qty: str
    side: str | None = None
    bid: str = "bid"
    ask: str = "ask"
    op: str = field(default="level_object", init=False)


@dataclass(frozen=True)
class Levels:
    """An array of levels: quantities absolute, 0 removes. `side` None: each level object tells its own."""

    side: Literal[0, 1] | None
    item: Pair | LevelObject
    op: str = field(default="levels", init=False)


@dataclass(frozen=True)
class Each:
    """An array whose items all have this shape."""

    item: Obj
    op: str = field(default="each", init=False)


@dataclass(frozen=True)
class Obj:
    """An object: what its keys mean. Keys that are not named are skipped."""

    keys: Mapping[str, Node]
    scope: bool = False
    op: str = field(default="object", init=False)


Scalar: TypeAlias = Leaf | ExchTime | Tag | TakerSide
Node: TypeAlias = "Scalar | Levels | Each | Obj | tuple[Levels | Each | Obj, Scalar]"


@dataclass(frozen=True)
class Rule:
    """What a scope is: `kind` if all tags in `when` have the given value (or one of them), and all `has` are there.

    Fields in `has` are asked of the scope itself, not of the scopes around it. `ignore`: known and of no interest.
    """

    kind: Literal["snapshot", "diff", "trade", "bbo", "ignore"]
    when: Mapping[str, str | tuple[str, ...] | Absent] = field(default_factory=dict)
    has: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A root object and the rules by which its scopes are told apart."""

    root: Obj
    rules: tuple[Rule, ...]
