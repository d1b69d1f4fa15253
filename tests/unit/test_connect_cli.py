"""lob_connect/cli.py: wrong options are one sentence and exit 2, before a ring exists."""

from __future__ import annotations

import sys

import pytest

from lob_connect import cli


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["lob-connect", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch", "A"], "no venue named 'nosuch'"),
        (["binance"], "no symbols"),
        (["binance", "A", "--replay", "/dev/null"], "'A' is no file"),
        (["binance", "A", "--speed", "real"], "--speed goes with --replay"),
        (["binance", "--replay", "x", "--speed", "fast"], "is no speed"),
        (["binance", "--replay", "x", "--speed", "0"], "is no speed"),
        (["binance", "--replay", "x", "--depth", "10"], "--depth is of no use with --replay"),
        (["binance", "--replay", "x", "--record", "y"], "--record is of no use with --replay"),
        (["binance", "A", "--url", "http://x"], "ws://"),
        (["binance", "A", "--url", "ws://x"], "--rest-url"),
        (["binance", "A", "--record", "/no/such/folder/x"], "No such file"),
        (["binance", "A", "--ca", "/no/such/ca.pem"], "/no/such/ca.pem"),
        (["binance", "A", "--streams-per-connection", "0"], "--streams-per-connection"),
        (["binance", "A" * 64], "is no symbol"),
        (["binance", "A", "--transport", "pigeon"], "--transport"),
        (["binance", "A", "--transport", "websockets", "--busy-poll"], "--busy-poll goes with --transport native"),
        (["binance", "A", "--rcvbuf", "5"], "--rcvbuf"),
        (["binance", "--replay", "x", "--busy-poll"], "--busy-poll is of no use with --replay"),
        (["binance", "A", "--bogus"], "--bogus"),
    ],
)
def test_wrong_options_are_one_sentence_and_2(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, monkeypatch) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.startswith("lob-connect: ")
    assert len(output.err.splitlines()) == 1
    assert output.out == ""


def test_a_file_that_is_no_ca_is_a_wrong_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["kraken", "A", "--ca", __file__], monkeypatch) == 2
    assert "--ca" in capsys.readouterr().err


def test_help_has_examples_and_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"], monkeypatch) == 0
    text = capsys.readouterr().out
    assert "Exit status" in text
    assert "lob-connect binance --replay" in text
