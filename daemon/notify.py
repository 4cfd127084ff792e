"""Telling systemd that the member is ready: one datagram to the socket named in NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import structlog


def notify_systemd(logger: structlog.stdlib.BoundLogger) -> None:
    """Send READY=1 if systemd asked for it; a failure is only logged, as the member serves anyhow."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.connect(address)
            notifier.sendall(b"READY=1")
    except OSError as error:
        logger.error("failed to notify systemd for readiness", error=str(error))  # noqa: TRY400 - no traceback wanted
    else:
        logger.info("notified init daemon")
