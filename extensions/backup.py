"""BackupActor: snapshots into a folder, again and again, each read back before it counts.

    extensions:
    - actor: "extensions.backup:BackupActor"
      options: {folder: /backup/actcd, every-s: 3600, keep-count: 24, keep-days: 30, only-on-leader: true}

The files are those of `etcdctl snapshot save`, and are restored in the same way.  A snapshot is written under another
name, made durable and checked (its SHA-256, every page, every record), and only then appears under its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, final

from actors.extension import ExtensionActor
from actors.messages.extension import StreamEnded, StreamSaid
from actors.messages.raft import RoleIs
from extensions.backup_files import PART, backups_in, expendable, file_name, safe
from net.rpc import OK
from proto.rpc_pb2 import SnapshotResponse
from storage.bbolt.pages import BoltError
from storage.bbolt.status import read_status
from wal.removal import remove_in_pieces

if TYPE_CHECKING:
    from extensions.backup_files import Backup

RETRY_S = 60.0
"""A backup that failed is tried again after this, or after the interval if that is shorter."""

FILE_MODE = 0o600


class Due:
    """A note to self: look whether it is time."""


@dataclass(frozen=True)
class BackupOptions:
    """Where to, how often, and how many to keep."""

    folder: str
    every_s: float = 3600.0
    keep_count: int = 24
    """0 keeps all."""
    keep_days: float = 0.0
    """0 keeps them for ever."""
    only_on_leader: bool = True
    """Otherwise every member that has this extension makes its own."""
    prefix: str = "snapshot"

    def __post_init__(self) -> None:
        """Refuse what makes no sense; raises ValueError."""
        if not self.folder:
            raise ValueError("the option folder must not be empty")
        if self.every_s < 1 or self.keep_count < 0 or self.keep_days < 0:
            raise ValueError("every-s must be at least 1, keep-count and keep-days at least 0")
        if safe(self.prefix) != self.prefix:
            raise ValueError("the option prefix may hold letters, digits, dots and underscores")


@final
class BackupActor(ExtensionActor):
    """Takes snapshots.

    Owns: the folder.  Tells: the node.  Fails when: the folder cannot be used at all.
    """

    Options = BackupOptions

    def setup(self) -> None:
        """Clear away what a crash has left, and see when the next one is due."""
        self._options: BackupOptions = self.node.options
        self._folder = Path(self._options.folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._part = self._folder / f"{self._options.prefix}-{safe(self.node.member_name)}{PART}"
        self._part.unlink(missing_ok=True)
        self._file: BinaryIO | None = None
        self._stream = 0
        self._began_s = 0.0
        before = self._before()
        now_s = self.node.clock.wall_s()
        self._due_s = (
            min(before[-1].taken_s + self._options.every_s, now_s + self._options.every_s) if before else now_s
        )
        self._wait()

    def handle(self, message: object) -> None:
        """Take one message."""
        match message:
            case Due() | RoleIs():
                self._begin_if_due()
            case StreamSaid(token=token) if token == self._stream:
                self._write(message.message)
            case StreamEnded(token=token) if token == self._stream:
                self._finish(message)
            case _:
                pass  # what was on its way when a backup was given up

    def teardown(self) -> None:
        """Leave nothing half done."""
        self._drop()

    def _before(self) -> list[Backup]:
        return backups_in(self._folder, self._options.prefix, self.node.member_name)

    def _wait(self) -> None:
        self.node.later(max(0.0, self._due_s - self.node.clock.wall_s()), Due())

    def _begin_if_due(self) -> None:
        if self._stream or self.node.clock.wall_s() < self._due_s:
            return
        if self._options.only_on_leader and not self.node.is_leader:
            return  # to lead is told
        self._began_s = self.node.clock.wall_s()
        try:
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            self._fail(str(error))
            return
        self._file = os.fdopen(descriptor, "wb")
        self._stream = self.node.snapshot()

    def _write(self, message: bytes) -> None:
        assert self._file is not None, "no backup is under way"
        try:
            self._file.write(SnapshotResponse.FromString(message).blob)
        except OSError as error:
            self._fail(str(error))

    def _finish(self, ended: StreamEnded) -> None:
        assert self._file is not None, "no backup is under way"
        self._stream = 0
        if ended.status != OK:
            self._fail(ended.status.message)
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            status = read_status(self._part)
            name = file_name(self._options.prefix, self.node.member_name, self._began_s, status.revision)
            self._part.rename(self._folder / name)
            self._sync_folder()
            self._clear_away()
        except (BoltError, OSError) as error:
            self._fail(str(error))
            return
        self._file = None
        self.node.logger.info(
            "took a backup",
            file=name,
            revision=status.revision,
            size_bytes=status.size_bytes,
            took_s=round(self.node.clock.wall_s() - self._began_s, 3),
        )
        self._due_s = self._began_s + self._options.every_s
        self._wait()

    def _clear_away(self) -> None:
        options = self._options
        for backup in expendable(self._before(), self._began_s, options.keep_count, options.keep_days):
            remove_in_pieces(backup.path, missing_ok=True)
            self.node.logger.info("removed an old backup", file=backup.path.name)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _fail(self, reason: str) -> None:
        wait_s = min(self._options.every_s, RETRY_S)
        self.node.logger.error("a backup failed", error=reason, wait_s=wait_s)
        self._drop()
        self._due_s = self.node.clock.wall_s() + wait_s
        self._wait()

    def _drop(self) -> None:
        if self._stream:
            self.node.close(self._stream)
            self._stream = 0
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what could not be written before cannot now; the file goes
                file.close()
            self._part.unlink(missing_ok=True)
