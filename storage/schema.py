"""Which layout a store on disk has: written when it is made, checked whenever it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mvcc.keyspace import LAYOUT

if TYPE_CHECKING:
    from core.mvcc.backend import Backend

LAYOUT_VERSION = 1
"""What core/mvcc/keyspace.py and core/mvcc/record.py describe."""
_VERSION_KEY = LAYOUT + b"version"


class StorageError(Exception):
    """The store on disk cannot be used; the text tells an operator why and what to do."""


def check_layout(backend: Backend, name: str) -> None:
    """Mark an empty *backend* with our layout; raise StorageError unless a used one has it.

    *name* is what the operator knows the store by.
    """
    version = backend.get(_VERSION_KEY)
    if version is None:
        if next(backend.scan_keys(b"\x00", b"\xff"), None) is not None:
            raise StorageError(f"{name} holds data that was not written by actcd: choose another data directory")
        backend.write([(_VERSION_KEY, b"%d" % LAYOUT_VERSION)], sync=True)
        return
    if not version.isdigit():
        raise StorageError(f"{name} is damaged: its layout version reads {version!r}; restore it from a snapshot")
    if int(version) > LAYOUT_VERSION:
        raise StorageError(
            f"{name} has layout {int(version)}, which a newer actcd wrote; this one knows layouts up to "
            f"{LAYOUT_VERSION}: run the newer version, or restore from a snapshot"
        )
