"""Who may import whom: tools know `lob` and themselves, `lob` knows no tool, and the pure parts touch no world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = {p.name: p for p in [ROOT / "shared" / "lob", *sorted(ROOT.glob("tools/*/lob_*"))]}
TOOLS = frozenset(PACKAGES) - {"lob"}

# Bytes and times go in, records and actions come out: a recording drives them as the network does.
PURE = ("lob.descriptor", "lob.errors", "lob.records", "lob.units", "lob.venues")
PURE += ("lob_connect.backoff", "lob_parse.hooks")
WORLD = {
    *("asyncio", "fcntl", "http", "mmap", "multiprocessing", "os", "posix_ipc", "random", "secrets", "select"),
    *("selectors", "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request"),
    "websockets",
}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of every package."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = (package, *file.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(module: str, file: Path) -> Iterator[str]:
    """Dotted names that a module imports, also inside functions; those for the type checker alone are left out."""
    tree = ast.parse(file.read_text(), str(file))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


MODULES = modules()


def test_every_package_is_found():
    assert {"lob", "lob_connect", "lob_parse", "lob_book", "lob_publish", "lob_trace"} <= set(PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_a_tool_imports_no_other_tool_and_lob_imports_none(module: str):
    own = module.partition(".")[0]
    others = {name for name in imports(module, MODULES[module]) if name.partition(".")[0] in TOOLS - {own}}
    assert not others


@pytest.mark.parametrize("module", [m for m in MODULES if any(m == p or m.startswith(p + ".") for p in PURE)])
def test_pure_part_imports_no_clock_socket_or_process(module: str):
    worldly = {name for name in imports(module, MODULES[module]) for w in WORLD if (name + ".").startswith(w + ".")}
    assert not worldly


def test_every_part_that_is_called_pure_exists():
    assert set(PURE) <= set(MODULES)


def test_cli_is_known_by_nobody_but_the_entry_point():
    for module, file in MODULES.items():
        if not module.endswith(".__main__"):
            assert not {name for name in imports(module, file) if "cli" in name.split(".")}, module
