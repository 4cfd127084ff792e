"""What the configuration asks of the machine that the daemon runs on: files, its own address, host names."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
from pathlib import Path

from config.load import Machine

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""Of Linux' mlockall(2)."""

_ELSEWHERE = ("192.0.2.1", 9)  # reserved for documentation (RFC 5737)


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _default_host() -> str | None:
    """Return the address of the interface that leads outside, None if there is no such way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)  # only picks a route: no packet is sent
        except OSError:
            return None
        host = str(probe.getsockname()[0])
    return None if ipaddress.ip_address(host).is_loopback else host


def resolve(host: str) -> str:
    """Return the IP address of *host*; raises OSError if it has none."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def lock_memory() -> None:
    """Keep what this process has in memory from being swapped out, each page from its first use on.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


THIS_MACHINE = Machine(read_text=_read_text, default_host=_default_host)
