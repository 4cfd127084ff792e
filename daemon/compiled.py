"""Which of our modules run compiled, and whether that is what their sources say; see tools/compiled.py."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple


class Compiled(NamedTuple):
    """Names of modules that were loaded as machine code, and of those whose sources were changed since."""

    modules: list[str]
    stale: list[str]


def compiled_modules(root: Path) -> Compiled:
    """Look at what this process has loaded from below *root*."""
    found = Compiled([], [])
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if not path.endswith(EXTENSION_SUFFIXES[0]) or root not in Path(path).parents:
            continue
        source = root.joinpath(*name.split(".")).with_suffix(".py")
        if source.exists():
            found.modules.append(name)
            if source.stat().st_mtime > Path(path).stat().st_mtime:
                found.stale.append(name)
    return found
