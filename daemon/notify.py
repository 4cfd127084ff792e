"""Telling systemd that the member is ready, or stops: one datagram to the socket named in NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import structlog


def notify_ready(logger: structlog.stdlib.BoundLogger) -> None:
    """Send READY=1 if systemd asked for it; a failure is only logged, as the member serves anyhow."""
    try:
        asked = _notify(b"READY=1")
    except OSError as error:
        logger.error("failed to notify systemd for readiness", error=str(error))  # noqa: TRY400 - no traceback wanted
    else:
        if asked:
            logger.info("notified init daemon")


def notify_stopping(logger: structlog.stdlib.BoundLogger) -> None:
    """Send STOPPING=1 if systemd asked for it, so that it shows the unit as deactivating from the first moment."""
    try:
        _notify(b"STOPPING=1")
    except OSError as error:
        logger.warning("failed to notify systemd of the stop", error=str(error))


def _notify(state: bytes) -> bool:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.connect(address)
        notifier.sendall(state)
    return True
