"""How calls end at the proxy itself."""

from __future__ import annotations

from typing import Final

from net.rpc import Code, Status

NO_CONNECTION: Final = Status(Code.UNAVAILABLE, "there is no connection available")
"""The text by which Go clients know that a request has not left and may be repeated, writes too."""

STOPPED: Final = Status(Code.UNAVAILABLE, "the proxy is stopping")
NO_GREATER_REVISION: Final = Status(
    Code.UNKNOWN,
    "etcdclient: no cluster members have a revision higher than the previously received revision",
)
READ_ONLY: Final = Status(
    Code.UNIMPLEMENTED, "this proxy only reads (proxy: readonly): send what changes the cluster to its members"
)


def malformed(error: Exception) -> Status:
    """Return the status for an answer of a member that is no message of its type."""
    return Status(Code.INTERNAL, f"grpc: failed to unmarshal the received message: {error}")
