"""The systemd journal as a log output: each line one message, with its level as priority.

Speaks journald's native protocol (systemd's "Native Journal Protocol"): fields in one datagram, or in a sealed memory
file whose descriptor is sent where they do not fit.  As in etcd, a line that cannot be sent goes to standard error.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from array import array
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.logs import LogStream

SOCKET_PATH = "/run/systemd/journal/socket"
_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "dpanic": 2, "panic": 2, "fatal": 2}
_DEFAULT_PRIORITY = 6
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalStream:
    """A LogStream; raises OSError where there is no journal."""

    def __init__(self, path: str = SOCKET_PATH, fallback: LogStream | None = None) -> None:
        """Lines that cannot be sent to the socket at *path* go to *fallback*, or standard error."""
        self._fallback: LogStream = sys.stderr.buffer if fallback is None else fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno, f"cannot connect to the systemd journal: {error.strerror}", path) from error

    def write(self, line: bytes, /) -> object:
        """Send *line*."""
        message = entry(line)
        try:
            self._send(message)
        except OSError:
            return self._fallback.write(line)
        return None

    def flush(self) -> object:
        """See LogStream."""
        return self._fallback.flush()

    def isatty(self) -> bool:
        """See LogStream."""
        return False

    def close(self) -> None:
        """Let go of the journal."""
        self._socket.close()

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError:  # most likely too long for a datagram
            descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.write(descriptor, message)
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))
                self._socket.sendmsg([], [rights])
            finally:
                os.close(descriptor)


def entry(line: bytes) -> bytes:
    """Return the journal entry of a finished line, JSON or tab-separated: MESSAGE, PRIORITY and who sent it."""
    level, caller = _level_and_caller(line)
    fields = {
        b"MESSAGE": line.rstrip(b"\n"),
        b"PRIORITY": b"%d" % _PRIORITIES.get(level, _DEFAULT_PRIORITY),
        b"PACKAGE": str(PurePosixPath(caller).parent).encode(),
        b"SYSLOG_IDENTIFIER": b"actcd",
    }
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name, len(value).to_bytes(8, "little"), value)
    return b"%b=%b\n" % (name, value)


def _level_and_caller(line: bytes) -> tuple[str, str]:
    try:
        fields = json.loads(line)
        return str(fields["level"]), str(fields["caller"])
    except (ValueError, KeyError, TypeError):
        columns = line.decode(errors="replace").split("\t", 3)
        return (columns[1], columns[2]) if len(columns) == 4 else ("", "")
