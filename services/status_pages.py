"""The HTTP pages of a client listener that need no gRPC: /health and /version.

Texts and checks are etcd's: see "HTTP endpoints" of its operations guide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from core.version import SERVER_VERSION
from services.metrics import MetricsPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.types import MemberId
    from net.rpc import HttpRequest, HttpResponder, Status
    from services.node import Node

PLAIN = ("content-type", "text/plain; charset=utf-8")
JSON = ("content-type", "application/json")
NO_SNIFF = ("x-content-type-options", "nosniff")
ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}


class StatusPages:
    """Answers HTTP requests on one client listener."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pages: dict[str, Callable[[HttpRequest, HttpResponder], None]] = {
            "/health": self._health,
            "/metrics": MetricsPage(node).handle,
            "/version": self._version,
        }

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request."""
        page = self._pages.get(request.path)
        if page is None:
            responder.reply(404, [PLAIN, NO_SNIFF], b"404 page not found\n")
        elif request.method not in {"GET", "HEAD"}:
            responder.reply(405, [("allow", "GET"), PLAIN, NO_SNIFF], b"Method Not Allowed\n")
        else:
            page(request, responder)

    def _version(self, _request: HttpRequest, responder: HttpResponder) -> None:
        responder.reply(200, [JSON], version_body(self._node.cluster_version))

    def _health(self, request: HttpRequest, responder: HttpResponder) -> None:
        query = parse_qs(request.query)
        excluded = set(query.get("exclude", ()))
        serializable = query.get("serializable", [""])[0] == "true"

        def with_alarms(alarms: Sequence[tuple[MemberId, int]]) -> None:
            for _, alarm in alarms:
                name = ALARM_NAMES.get(alarm, "UNKNOWN")
                if name not in excluded:
                    reply_health(responder, f"ALARM {name}")
                    return
            if serializable:
                reply_health(responder, "")
            elif not self._node.leader:
                reply_health(responder, "RAFT NO LEADER")
            else:
                self._node.read(HealthRead(responder), lambda _view: reply_health(responder, ""))

        self._node.alarms(with_alarms)


def version_body(cluster_version: str) -> bytes:
    """Return the content of /version; *cluster_version* is empty as long as the members have not agreed on one."""
    versions = {"etcdserver": SERVER_VERSION, "etcdcluster": cluster_version or "not_decided"}
    return json.dumps(versions, separators=(",", ":")).encode()


def reply_health(responder: HttpResponder, reason: str) -> None:
    """Answer /health: healthy if there is no *reason* to say otherwise."""
    health = {"health": "false" if reason else "true", "reason": reason}
    body = json.dumps(health, separators=(",", ":")).encode()
    if reason:
        responder.reply(503, [PLAIN, NO_SNIFF], body + b"\n")
    else:
        responder.reply(200, [PLAIN], body)


class HealthRead:
    """The linearizable read behind /health: only whether it succeeds matters."""

    def __init__(self, responder: HttpResponder) -> None:
        self._responder = responder

    @property
    def done(self) -> bool:
        """See Asker."""
        return self._responder.done

    def fail(self, status: Status) -> None:
        """See Asker."""
        reply_health(self._responder, f"RANGE ERROR:{status.message}")
