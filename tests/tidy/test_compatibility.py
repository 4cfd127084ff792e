"""The page that tells what of etcd 3.7 is here is that of the code."""

from __future__ import annotations

from tools.genfeatures import PAGE, page


def test_the_page_is_fresh() -> None:
    """A table that nobody made anew promises what is gone, or hides what is there."""
    assert PAGE.read_text() == page(), "run: python tools/genfeatures.py"
