"""Options that all stages have, and how command lines end."""

from __future__ import annotations

import errno
import grp
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from lob import _native
from lob.errors import ForeignOwner, RingError, RoleTaken, WrongLayout
from lob.memory import nodes_with_memory
from lob.names import check_name
from lob.segments import CAPACITY_MAX_BYTES, CAPACITY_MIN_BYTES

# Before numpy is imported. A stage does no linear algebra, but numpy's library starts a thread a core, and each spins
# while the stages start (a tenth of the CPU time of the first second).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic only in the newer releases of click

EXIT_STATUS = """\b
Exit status: 0 input ended, was stopped, or the reader went away; 1 failed while
running; 2 wrong option, config or input line; 3 ring of another layout or owner."""


@dataclass(frozen=True)
class Common:
    """What every stage is told."""

    input_ring: str | None
    output_ring: str | None
    instance: str | None
    print_records: bool
    for_s: float | None
    cpu: int | None
    wait: str
    ring_bytes: int | None
    ring_timeout_s: float | None
    shm_group: str | None
    huge: bool = False
    mlock: bool = False
    numa_node: int | None = None


class Size(ParamType):
    """Bytes with an optional K, M or G (1024 each); a power of two that a ring can have."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMG]?)(i?B?)", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"'{value}' is no size; write e.g. 33554432 or 32M", param, ctx)
        size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
        if not CAPACITY_MIN_BYTES <= size <= CAPACITY_MAX_BYTES or size & (size - 1):
            self.fail(f"{value} is no power of two from 4K to 64G", param, ctx)
        return size


class Ring(ParamType):
    """A ring's name."""

    name = "ring"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_name(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Instance(ParamType):
    """The middle part of ring names."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(value)):
            self.fail(f"'{value}' is no instance name: 1 to 64 letters, digits, _ and -", param, ctx)
        return str(value)


class Group(ParamType):
    """A group of this host."""

    name = "group"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            grp.getgrnam(str(value))
        except KeyError:
            self.fail(f"no group named '{value}' on this host", param, ctx)
        return str(value)


class Node(ParamType):
    """A NUMA node of this host."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not re.fullmatch(r"\d{1,4}", str(value)):
            self.fail(f"'{value}' is no NUMA node; write its number, 0 for the first", param, ctx)
        there = nodes_with_memory()
        if there is not None and int(value) not in there:
            nodes = ", ".join(map(str, sorted(there)))
            self.fail(f"this host has no NUMA node {value} with memory, only {nodes}", param, ctx)
        return int(value)


class Seconds(ParamType):
    """A duration: 30, 30s, 500ms, 5m."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", str(value))
        if match is None:
            self.fail(f"'{value}' is no duration; write e.g. 30s or 500ms", param, ctx)
        return float(match[1]) * {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def common_options(*, reads: bool = True, writes: bool = True) -> Callable[[F], F]:
    """The options of `Common`; pass the keywords they produce to `common`."""

    def decorate(command: F) -> F:
        options: list[Callable[[F], F]] = []
        instance = "that of the ring it reads" if reads else "the venue"
        if reads:
            options += [
                click.option("--in", "input_ring", type=Ring(), help="Ring to read  [default: the one named on stdin]"),
                click.option(
                    "--ring-timeout",
                    "ring_timeout_s",
                    type=Seconds(),
                    default=None,
                    help="Wait so long for a missing --in ring  [default: 30s; for ever under systemd]",
                ),
            ]
        if writes:
            options += [
                click.option("--out", "output_ring", type=Ring(), help="Named ring to write; it outlives this process"),
                click.option("--ring-bytes", type=Size(), help="Size of the ring to write, a power of two, e.g. 32M"),
                click.option("--print", "print_records", is_flag=True, help="Print records as NDJSON (for | jq)"),
            ]
        options += [
            click.option("--instance", type=Instance(), help=f"Middle part of ring names  [default: {instance}]"),
            click.option("--for", "for_s", type=Seconds(), help="Stop after so long  [default: until input ends]"),
            click.option("--cpu", type=click.IntRange(0, 4095), help="Pin this process to one core"),
            click.option(
                "--wait",
                type=click.Choice(["spin", "yield", "block", "auto"]),
                default="auto",
                show_default=True,
                help="How to wait for data; spin needs a core of its own",
            ),
            click.option("--huge", is_flag=True, help="Huge pages (2 MiB) for the rings it makes or reads"),
            click.option("--mlock", is_flag=True, help="Lock the rings it makes or reads into memory"),
            click.option("--numa", "numa_node", type=Node(), help="NUMA node for the pages of the rings it makes"),
            click.option("--shm-group", type=Group(), help="Group that may read the public ring and the board"),
        ]
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def common(options: dict[str, Any]) -> Common:
    """Takes the keywords of `common_options` out of `options`."""
    names = Common.__dataclass_fields__
    values = {name: options.pop(name, None) for name in names}
    for flag in ("print_records", "huge", "mlock"):
        values[flag] = bool(values[flag])
    return Common(**values)


def run_cli(tool: str, command: click.Command) -> NoReturn:
    """Run a command with the house's exit codes: one sentence on stderr for every expected trouble."""
    try:
        # Not command.main(): that turns a broken pipe into exit 1 before anybody can say otherwise.
        with command.make_context(tool, sys.argv[1:]) as context:
            result = command.invoke(context)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as error:
        say(tool, " ".join(error.format_message().split()) + f" (see {tool} --help)")
        code = 2
    except (WrongLayout, RoleTaken, ForeignOwner) as error:
        say(tool, str(error))
        code = 3
    except (RingError, _native.CorruptRing, _native.LayoutError) as error:
        say(tool, str(error))
        code = 1
    except BrokenPipeError:
        code = 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(tool, f"{error.filename or 'stdout'}: {error.strerror}")
        code = 1
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            say(tool, f"stdout: {error.strerror}")
            code = code or 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes again at exit
    sys.exit(code)


def say(tool: str, sentence: str) -> None:
    """One line for people, on stderr."""
    try:
        print(f"{tool}: {sentence}", file=sys.stderr, flush=True)
    except (BrokenPipeError, ValueError):
        pass
