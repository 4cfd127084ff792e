"""What the reader of a configuration should hear about it although it is accepted.

Notes are values: they arise before there is a logger, and whoever starts the daemon writes them to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the log."""

    level: Literal["info", "warning"]
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as one line for a terminal."""
        details = ", ".join(f"{key}={value}" for key, value in self.fields.items())
        return f"{self.text} ({details})" if details else self.text
