"""Damage of the kind that no checksum of the log sees: one byte of a stored value, changed while its member is down."""

from pathlib import Path

import plyvel

RECORDS = b"r"
"""Where revisions lie; see docs/internals/mvcc.md."""


def change_one_byte(data_dir: Path, value: bytes, changed: bytes) -> int:
    """Replace *value*, which must be of the same length, in every record of a member that is down; return how many."""
    assert len(value) == len(changed)
    database = plyvel.DB(str(data_dir / "member" / "db"))
    try:
        found = [(key, kv) for key, kv in database.iterator(prefix=RECORDS) if value in kv]
        for key, kv in found:
            database.put(key, kv.replace(value, changed))
    finally:
        database.close()
    return len(found)
