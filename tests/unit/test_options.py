"""Options that all stages have, and how their command lines end."""

from __future__ import annotations

import sys
from typing import Any

import click
import pytest

from lob import _native
from lob.errors import ForeignOwner, NoRing, NoSpace, RoleTaken, WrongLayout
from lob.memory import nodes_with_memory
from lob.options import Common, Group, Instance, Node, Ring, Seconds, Size, common, common_options, run_cli


def convert(kind: click.ParamType[Any], text: str) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("4K", 4096), ("32M", 1 << 25), ("32MiB", 1 << 25), ("1gb", 1 << 30), ("64G", 1 << 36)],
)
def test_a_size_is_bytes_or_k_m_g_of_1024(text: str, size: int) -> None:
    assert convert(Size(), text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-4096", "2K", "128G", "5000", "3M", "32 M", "1.5M", "0x1000", "32T", "4096\n"]
)
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no size|no power of two"):
        convert(Size(), text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("1.5m", 90.0), ("2h", 7200.0), ("0", 0.0)]
)
def test_a_duration_is_a_number_with_an_optional_unit(text: str, seconds: float) -> None:
    assert convert(Seconds(), text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "1 s", "1e3", "nan", "inf", "5s\n"])
def test_any_other_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        convert(Seconds(), text)


def test_names_of_rings_instances_and_groups_are_checked() -> None:
    assert convert(Ring(), "/lob.a.raw") == "/lob.a.raw"
    assert convert(Instance(), "binance-a_1") == "binance-a_1"
    assert convert(Group(), "root") == "root"
    for kind, bad in (
        (Ring(), "lob.a.raw"),
        (Instance(), "a.b"),
        (Instance(), ""),
        (Instance(), "a\n"),
        (Group(), "no-such"),
    ):
        with pytest.raises(click.BadParameter):
            convert(kind, bad)


def test_a_numa_node_is_one_that_this_host_has() -> None:
    nodes = nodes_with_memory()
    for node in nodes or {0, 7}:  # a kernel that knows no nodes says so when a ring is made
        assert convert(Node(), str(node)) == node
    with pytest.raises(click.BadParameter, match="no NUMA node; write its number"):
        convert(Node(), "-1")
    with pytest.raises(click.BadParameter, match="no NUMA node; write its number"):
        convert(Node(), "all")
    if nodes is not None:
        with pytest.raises(click.BadParameter, match="this host has no NUMA node 1024 with memory, only 0"):
            convert(Node(), "1024")


def parsed(arguments: list[str], **which: bool) -> tuple[Common, dict[str, Any]]:
    @click.command()
    @common_options(**which)
    @click.option("--mine", default=1)
    def command(**options: Any) -> tuple[Common, dict[str, Any]]:
        return common(options), options

    result: tuple[Common, dict[str, Any]] = command.main(arguments, standalone_mode=False)
    return result


def test_common_options_become_one_settings_object_and_leave_the_tools_own() -> None:
    settings, own = parsed(
        ["--in", "/lob.a.raw", "--out", "/lob.a.book", "--for", "5s", "--ring-bytes", "1M", "--mine", "3"]
    )
    assert settings == Common("/lob.a.raw", "/lob.a.book", None, False, 5.0, None, "auto", 1 << 20, None, None)
    assert own == {"mine": 3}


def test_wishes_for_memory_are_options_of_every_stage_and_off_without_them() -> None:
    for which in ({}, {"reads": False}, {"writes": False}):
        settings, _ = parsed([], **which)
        assert (settings.huge, settings.mlock, settings.numa_node) == (False, False, None)
    settings, _ = parsed(["--huge", "--mlock", *(["--numa", "0"] if nodes_with_memory() else [])])
    assert settings.huge and settings.mlock and settings.numa_node == (0 if nodes_with_memory() else None)


def test_a_stage_without_input_or_output_has_none_of_their_options() -> None:
    assert parsed([], reads=False)[0].input_ring is None
    assert parsed([], writes=False)[0].print_records is False
    for which, option in (({"reads": False}, "--in"), ({"writes": False}, "--out"), ({"writes": False}, "--print")):
        with pytest.raises(click.NoSuchOption):
            parsed([option, "/lob.a.raw"], **which)


def ends(monkeypatch: pytest.MonkeyPatch, action: Any, *arguments: str) -> int:
    @click.command()
    def command() -> Any:
        return action()

    monkeypatch.setattr(sys, "argv", ["lob-test", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_cli("lob-test", command)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (click.UsageError("stdin: what is this"), 2, "stdin: what is this (see lob-test --help)"),
        (click.BadParameter("no", param_hint="--cpu"), 2, "--cpu"),
        (WrongLayout("/lob.a.raw is of another layout"), 3, "/lob.a.raw is of another layout"),
        (RoleTaken("/lob.a.raw", "owner", 7), 3, "live owner (pid 7)"),
        (RoleTaken("/lob.a.raw", "owner", 0), 3, "live owner; stop it, or choose another --instance"),
        (RoleTaken("/lob.a.raw", "reader", 7), 3, "live reader (pid 7); stop it, or read the ring of a later stage"),
        (ForeignOwner("/lob.a.raw"), 3, "belongs to another user"),
        (NoRing("/lob.a.raw"), 1, "no ring named /lob.a.raw"),
        (NoSpace("too small"), 1, "too small"),
        (_native.CorruptRing("a record of impossible length 7"), 1, "impossible length"),
    ],
)
def test_expected_trouble_is_one_sentence_and_its_exit_code(
    error: Exception, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(monkeypatch, raising(error)) == code
    stderr = capsys.readouterr().err
    assert stderr.startswith("lob-test: ") and sentence in stderr and stderr.count("\n") == 1


def test_a_broken_pipe_is_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(monkeypatch, raising(BrokenPipeError(32, "Broken pipe"))) == 0
    assert capsys.readouterr().err == ""


def test_what_the_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(monkeypatch, lambda: 1) == 1
    assert ends(monkeypatch, lambda: None) == 0
    assert ends(monkeypatch, raising(KeyboardInterrupt())) == 130
    assert ends(monkeypatch, lambda: 1, "--help") == 0
    assert ends(monkeypatch, lambda: 1, "--no-such-option") == 2


def test_what_nobody_expected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["lob-test"])
    with pytest.raises(ZeroDivisionError):
        run_cli("lob-test", command)
