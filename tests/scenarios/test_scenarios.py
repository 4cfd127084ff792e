"""Every scenario brings about what is recorded in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.script import parse, run

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """What a cluster does, step by step, is what the file says; a change of behaviour shows as a change of text."""
    text = path.read_text(encoding="utf-8")
    happened = "\n\n".join(block.text() for block in run(parse(text))) + "\n"
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened, encoding="utf-8")
    else:
        assert happened == text


def test_there_are_scenarios() -> None:
    """A wrong path would let the test above pass with nothing to do."""
    assert len(SCENARIOS) > 15
