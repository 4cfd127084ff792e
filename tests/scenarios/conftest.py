"""The option that records scenarios anew: ``pytest tests/scenarios --rewrite``, then defend each changed line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --rewrite."""
    parser.addoption("--rewrite", action="store_true", help="record what the scenarios bring about")
