"""When a log file is rotated: the JSON text of --log-rotation-config-json, with etcd's keys."""

from __future__ import annotations

import json
from typing import NamedTuple

from config.faults import BadValue

SIZE_MB_DEFAULT = 100
"""What a maxsize of 0 stands for."""


class Rotation(NamedTuple):
    """When to begin a new file, and which old ones to keep."""

    size_mb_max: int = SIZE_MB_DEFAULT
    age_days_max: int = 0
    """Older files are removed; 0 keeps them."""
    backups_max: int = 0
    """The oldest files beyond so many are removed; 0 keeps them."""
    local_time: bool = False
    """Whether the names of old files tell local time instead of UTC."""
    compress: bool = False


_FIELDS = {
    "maxsize": ("size_mb_max", int),
    "maxage": ("age_days_max", int),
    "maxbackups": ("backups_max", int),
    "localtime": ("local_time", bool),
    "compress": ("compress", bool),
}


def parse_rotation(text: str) -> Rotation:
    """Return what *text* says; raises BadValue in etcd's words.  Other keys mean nothing, as in etcd."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"improperly formatted log rotation config: {error}") from error
    if not isinstance(given, dict):
        raise BadValue("invalid log rotation config: it must be an object")
    values: dict[str, int | bool] = {}
    for name, value in given.items():
        if value is None or name.lower() not in _FIELDS:
            continue
        field, kind = _FIELDS[name.lower()]
        if not isinstance(value, int) or isinstance(value, bool) is not (kind is bool):
            raise BadValue("invalid log rotation config: sizes, ages and counts are numbers, the rest booleans")
        if value < 0:
            raise BadValue(f"invalid log rotation config: {name} must not be negative")
        values[field] = value
    made = Rotation()._replace(**values)  # type: ignore[arg-type]  # each has its field's type, as was seen above
    return made if made.size_mb_max else made._replace(size_mb_max=SIZE_MB_DEFAULT)
