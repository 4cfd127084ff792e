"""Bound, listening sockets for URLs: TCP, and unix sockets, whose file is named by the URL's host and path."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.urls import Url

LISTEN_BACKLOG = 1024


class ListenRefused(Exception):  # noqa: N818 - named for what happened
    """Nothing can be listened on there; the text is for the operator."""


def bind_host(url: Url) -> str:
    """Return the address to bind for *url*: localhost is the IPv4 loopback, as for most clients."""
    return "127.0.0.1" if url.host == "localhost" else url.host


def listen(url: Url, *, reuse_port: bool = False) -> socket.socket:
    """Return a bound, listening socket for *url*; clients that connect early wait until they are served.

    With *reuse_port* several processes may listen on one port, and the kernel spreads the clients.  Raises
    ListenRefused.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) if url.is_unix else _tcp_socket(url, reuse_port)
    try:
        if url.is_unix:
            path = url.host + url.path
            _remove_stale(path)
            listening.bind(path)
        else:
            listening.bind((bind_host(url), url.port))
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise ListenRefused(
            f"cannot listen on {url}: {reason}. Is another server running there? Choose another address"
        ) from error
    listening.setblocking(False)
    return listening


def file_of(listening: socket.socket) -> str:
    """Return the name of the file that a unix socket has, nothing for others."""
    return str(listening.getsockname()) if listening.family is socket.AF_UNIX else ""


def remove_file(path: str) -> None:
    """Remove the file of a unix socket that is listened on no more; nothing is no file."""
    if path:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a name that the kernel gave


def _tcp_socket(url: Url, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in url.host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only on connections whose socket names its protocol; with it, messages that
    # follow each other quickly wait forty milliseconds for the other end's delayed acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Go sets it on all listeners, so etcd's setting changes nothing on Linux, there as here.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def _remove_stale(path: str) -> None:
    """Remove the socket that a process left behind; OSError if it still listens, or if the file is none of ours."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a socket's name, not a path to walk
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "a file of that name exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - see above
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
