"""What the tools are called: all that a command line must know of them, so that members start without the tools."""

from __future__ import annotations

from typing import Final

CHECK_CONFIG: Final = "check-config"
TOOL_NAMES: Final = frozenset({"snapshot", "hashkv", "defrag", "dump-log", "dump-db", "migrate", "completion"})
