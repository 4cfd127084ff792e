"""What can be wrong with a configuration, as values.

Owns the wording around a fault: key, value, rule.  The rules themselves stand where they are checked.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_REFUSED = 1
"""etcd's exit code for a configuration that does not make sense."""
EXIT_SYNTAX = 2
"""etcd's exit code for flags that cannot be read."""


class BadValue(ValueError):  # noqa: N818 - named for what happened
    """A value that cannot be read; its text is the rule that was broken."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    key: str
    """The flag, variable or file key as its user wrote it; empty where no single key is at fault."""
    value: str | None
    """As it was given; None where there is none to show."""
    rule: str
    exit_code: int = EXIT_REFUSED

    def __str__(self) -> str:
        """Return one line for people: etcd's sentence where it names the key itself, else the key before it."""
        if self.key.lstrip("-") in self.rule:
            return self.rule
        given = "" if self.value is None else f"={self.value}"
        return f"{self.key}{given}: {self.rule}"


class ConfigRefused(Exception):  # noqa: N818 - named for what happened
    """A configuration that actcd will not run with; holds every fault that was found."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults

    @property
    def exit_code(self) -> int:
        """What the process should exit with: flags that cannot be read weigh most, as in etcd."""
        return max(fault.exit_code for fault in self.faults)
