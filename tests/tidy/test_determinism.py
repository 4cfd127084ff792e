"""Time and chance are handed in, so that a seed can replay a whole cluster."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.tidy.test_layers import ROOT, modules, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BANNED_MODULES = {"time", "secrets", "sched", "datetime"}
"""Clocks and chance that nobody handed in."""

BANNED_NAMES = {
    "threading": {"Timer"},
    "random": {"*"},
    "asyncio": {"sleep", "wait_for", "timeout"},
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom"},
}
"""Of these modules only some names are forbidden; of random, every function, but not the class Random."""


def offences(path: Path) -> Iterator[str]:
    """Yield every use of a clock or of chance in the module at *path*."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in BANNED_MODULES:
                    yield f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module in BANNED_MODULES:
                yield f"imports from {node.module}"
            for alias in node.names:
                if _banned(node.module, alias.name):
                    yield f"imports {node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and _banned(node.value.id, node.attr):
            yield f"uses {node.value.id}.{node.attr}"


def _banned(module: str, name: str) -> bool:
    names = BANNED_NAMES.get(module, set())
    return name in names or (names == {"*"} and name != "Random")


@pytest.mark.parametrize("layer", ["core", "actors", "services"])
def test_no_clock_and_no_chance_but_what_is_handed_in(layer: str) -> None:
    """Actors have no timers, and decisions no dice: ticks, clocks and Randoms come through constructors."""
    found = [f"{path.relative_to(ROOT)} {offence}" for path in modules(layer) for offence in offences(path)]
    assert found == []


def test_the_ban_would_be_noticed(tmp_path: Path) -> None:
    """A ban that matches nothing would pass for obedience."""
    module = tmp_path / "module.py"
    module.write_text(
        "import time\nimport random\nfrom threading import Timer\nfrom random import Random, choice\n"
        "x = random.random()\ny: random.Random\nasyncio.sleep(1)\n"
    )
    assert sorted(offences(module)) == [
        "imports random.choice",
        "imports threading.Timer",
        "imports time",
        "uses asyncio.sleep",
        "uses random.random",
    ]
