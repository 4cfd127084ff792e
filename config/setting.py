"""What is known of one setting, and how a frozen dataclass declares it next to its field.

Owns the shape of a declaration.  schema.py uses it once for each key; flags, variables, file keys, help and the sample
file all come from there.  Knows nothing of where values come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.kinds import Kind

T = TypeVar("T")

FILE_KEY_AS_NAME = "="
"""The setting's key in the file is its flag's name: the common case."""

_METADATA_KEY = "setting"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its name, kind, default and meaning, and where it can be set."""

    name: str
    """The flag, without dashes; for a key that only the file has, its dotted path there."""
    kind: Kind[Any]
    default: Any
    meaning: str
    file_path: tuple[str, ...]
    """Object and key in the file; empty where the file cannot set it."""
    flag: bool
    """Whether it has a flag and an environment variable."""
    secret: bool
    """Whether its value must not be shown, not even in a refusal."""
    check: Callable[[Any], str | None] | None
    """Returns the rule that a value breaks, if it breaks one."""
    zero_means: Any
    """What 0 stands for, None if it stands for itself."""
    shown_default: str | None
    """What help shows where the default is derived from other settings."""
    note: str | None
    """A warning for whoever sets it to anything but the default."""

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return "ETCD_" + self.name.upper().replace("-", "_")

    @property
    def file_key(self) -> str:
        """Its key in the file, dotted when it lives in an object there."""
        return ".".join(self.file_path)

    @property
    def default_text(self) -> str:
        """Its default as help shows it."""
        return str(self.kind.to_text(self.default)) if self.shown_default is None else self.shown_default


def setting(
    name: str,
    kind: Kind[T],
    default: T,
    meaning: str,
    *,
    file: str | None = FILE_KEY_AS_NAME,
    flag: bool = True,
    secret: bool = False,
    check: Callable[[T], str | None] | None = None,
    zero_means: T | None = None,
    shown_default: str | None = None,
    note: str | None = None,
) -> T:
    """Declare a setting as the default of a dataclass field.

    *file* is the dotted path of its key in the file, None if the file has no such key.
    """
    file_path = () if file is None else (name,) if file == FILE_KEY_AS_NAME else tuple(file.split("."))
    declared = Setting(
        name=name,
        kind=kind,
        default=default,
        meaning=meaning,
        file_path=file_path,
        flag=flag,
        secret=secret,
        check=check,
        zero_means=zero_means,
        shown_default=shown_default,
        note=note,
    )
    return field(default=default, metadata={_METADATA_KEY: declared})


def declared_in(metadata: Any) -> Setting:  # noqa: ANN401 - dataclasses types it so
    """Return the setting that a field's *metadata* holds."""
    found = metadata[_METADATA_KEY]
    assert isinstance(found, Setting), found
    return found
