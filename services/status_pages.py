"""The HTTP pages of a member: /health, /livez, /readyz, /version, /metrics and those below /debug/.

Texts and checks are etcd's: see "HTTP endpoints" of its operations guide.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from core.metrics import Sample
from core.version import SERVER_VERSION
from services.debug_pages import DebugPages
from services.health_checks import CheckRead, HealthPage
from services.metrics import MetricsPage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.types import MemberId
    from net.rpc import HttpRequest, HttpResponder
    from services.access import Profile
    from services.node import Node
    from services.trace_pages import LogLines

    Page = Callable[[HttpRequest, HttpResponder], None]

PLAIN = ("content-type", "text/plain; charset=utf-8")
JSON = ("content-type", "application/json")
NO_SNIFF = ("x-content-type-options", "nosniff")
NO_PROFILES: Mapping[str, Profile] = MappingProxyType({})
ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}


class StatusPages:
    """Answers HTTP requests on one listener."""

    def __init__(
        self,
        node: Node,
        profiles: Mapping[str, Profile] = NO_PROFILES,
        lines: LogLines | None = None,
        *,
        for_metrics: bool = False,
    ) -> None:
        """Leave out all but health and metrics where the listener is *for_metrics*."""
        self._node = node
        self._successes = 0
        self._failures = 0
        self._metrics = MetricsPage(node)
        self._checks = (HealthPage(node, "livez"), HealthPage(node, "readyz"))
        self._pages: dict[str, Page] = {"/health": self._health}
        for checks in self._checks:
            self._pages.update(dict.fromkeys(checks.paths, checks.handle))
        self._debug: DebugPages | None = None
        if not for_metrics:
            self._pages["/version"] = self._version
            self._debug = DebugPages(node, profiles, lines)

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request (an HttpHandler)."""
        if request.path == "/metrics":
            self._metrics.handle(request, responder)
            return
        page = self._pages.get(request.path)
        if page is None and self._debug is not None:
            page = self._debug.find(request.path)
        if page is None:
            responder.reply(404, [PLAIN, NO_SNIFF], b"404 page not found\n")
        elif request.method != "GET":
            responder.reply(405, [("allow", "GET"), PLAIN, NO_SNIFF], b"Method Not Allowed\n")
        else:
            page(request, responder)

    def samples(self) -> list[Sample]:
        """Return how the health pages went so far."""
        return [
            *self._metrics.samples(),
            Sample("etcd_server_health_success", self._successes),
            Sample("etcd_server_health_failures", self._failures),
            *(sample for checks in self._checks for sample in checks.samples()),
        ]

    def _version(self, _request: HttpRequest, responder: HttpResponder) -> None:
        responder.reply(200, [JSON], version_body(self._node.cluster_version))

    def _health(self, request: HttpRequest, responder: HttpResponder) -> None:
        query = parse_qs(request.query)
        excluded = set(query.get("exclude", ()))
        serializable = query.get("serializable", [""])[0] == "true"

        def answer(reason: str) -> None:
            if reason:
                self._failures += 1
            else:
                self._successes += 1
            reply_health(responder, reason)

        def with_alarms(alarms: Sequence[tuple[MemberId, int]]) -> None:
            for _, alarm in alarms:
                name = ALARM_NAMES.get(alarm, "UNKNOWN")
                if name not in excluded:
                    answer(f"ALARM {name}")
                    return
            if serializable:
                answer("")
            elif not self._node.leader:
                answer("RAFT NO LEADER")
            else:
                read = CheckRead(responder, lambda status: answer(f"RANGE ERROR:{status.message}"))
                self._node.read(read, lambda _view: answer(""))

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
