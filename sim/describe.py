"""Messages as a trace shows them: short, and the same in every run (no ids of objects)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.messages.raft import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.raft.messages import Message

SHOWN_MAX = 60
"""Characters of one value."""


def describe(message: object) -> str:
    """Return one line."""
    if isinstance(message, Step):
        return "Step " + "; ".join(describe_raft(each) for each in message.messages)
    fields: Any = getattr(message, "_asdict", dict)()
    return " ".join([type(message).__name__.strip("_"), *(f"{name}={shown(value)}" for name, value in fields.items())])


def describe_raft(message: Message) -> str:
    """Return what one member says to another."""
    parts = [message.type.name, f"term={message.term}", f"index={message.index}"]
    if message.entries:
        parts.append(f"entries={len(message.entries)}..{message.entries[-1].index}")
    if message.commit:
        parts.append(f"commit={message.commit}")
    if message.reject:
        parts.append(f"reject hint={message.reject_hint}")
    if message.context:
        parts.append(f"context={message.context.hex()}")
    return " ".join(parts)


def shown(value: object) -> str:
    """Return numbers and bytes as they are, sequences by their length, and of all else only the kind."""
    match value:
        case bool() | int() | None:
            return str(value)
        case float():
            return f"{value:.4f}"
        case bytes() | str():
            return repr(value[:SHOWN_MAX])
        case tuple() if hasattr(value, "_asdict"):
            return f"({', '.join(shown(part) for part in value)})"
        case tuple() | list():
            return sequence(value)
        case _:
            return type(value).__name__


def sequence(values: Sequence[object]) -> str:
    """Return what a few values are, or how many."""
    if len(values) <= 3:
        return f"[{', '.join(shown(value) for value in values)}]"
    return f"[{shown(values[0])} ... {shown(values[-1])}] ({len(values)})"
