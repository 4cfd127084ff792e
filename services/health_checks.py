"""/livez and /readyz: is this member alive, and may clients be sent to it?

Each is a list of checks, which may be asked for one by one or left out.  Spec: "HTTP endpoints" of etcd's operations
guide; the format of the answers is that of Kubernetes' own health endpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs

from core.metrics import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.types import MemberId
    from net.rpc import HttpRequest, HttpResponder, Status
    from services.node import Node

    Report = Callable[[str], None]
    """Takes the reason why a check failed; empty if it did not."""

CORRUPT: Final = 2
"""The alarm's number."""

TEXT: Final = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))


class CheckRead:
    """A linearizable read that is made for a check: only how it ends matters."""

    def __init__(self, responder: HttpResponder, failed: Callable[[Status], None]) -> None:
        self._responder = responder
        self._failed = failed

    @property
    def done(self) -> bool:
        """See Asker."""
        return self._responder.done

    def fail(self, status: Status) -> None:
        """See Asker."""
        self._failed(status)


class _Wanted(NamedTuple):
    """What one request wants to know."""

    checks: Sequence[str]
    excluded: frozenset[str]
    verbose: bool


class HealthPage:
    """One of the two pages, with the pages of its single checks below it."""

    def __init__(self, node: Node, kind: str) -> None:
        """*kind* is livez or readyz."""
        self._node = node
        self._kind = kind
        every: dict[str, Callable[[HttpResponder, Report], None]] = {
            "data_corruption": self._check_corruption,
            "serializable_read": self._check_serializable_read,
            "linearizable_read": self._check_linearizable_read,
            "non_learner": self._check_non_learner,
        }
        self._checks = every if kind == "readyz" else {"serializable_read": self._check_serializable_read}
        self._last: dict[str, int] = {}
        self._counts = {(name, status): 0 for name in self._checks for status in ("success", "error")}

    @property
    def paths(self) -> Sequence[str]:
        """Where it is found."""
        return (f"/{self._kind}", *(f"/{self._kind}/{name}" for name in self._checks))

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Run the checks that are asked for, one after the other, and answer."""
        query = parse_qs(request.query, keep_blank_values=True)
        _, _, single = request.path.removeprefix("/").partition("/")
        # Left out are only checks that there are; etcd just logs other names.
        excluded = frozenset() if single else frozenset(query.get("exclude", ()))
        wanted = _Wanted((single,) if single else tuple(self._checks), excluded, "verbose" in query)
        self._go_on(wanted, 0, [], responder)

    def samples(self) -> list[Sample]:
        """Return how the checks went so far."""
        last = [Sample("etcd_server_healthcheck", value, (self._kind, name)) for name, value in self._last.items()]
        return last + [
            Sample("etcd_server_healthchecks_total", count, (self._kind, name, status))
            for (name, status), count in self._counts.items()
        ]

    def _go_on(self, wanted: _Wanted, position: int, reasons: list[str], responder: HttpResponder) -> None:
        """Run the check at *position* and those behind it; *reasons* are how those before it went."""
        if position == len(wanted.checks):
            self._answer(wanted, reasons, responder)
            return
        name = wanted.checks[position]

        def then(reason: str) -> None:
            self._go_on(wanted, position + 1, [*reasons, reason], responder)

        def record(reason: str) -> None:
            self._last[name] = 0 if reason else 1
            self._counts[name, "error" if reason else "success"] += 1
            then(reason)

        if name in wanted.excluded:
            then("")
        else:
            self._checks[name](responder, record)

    def _answer(self, wanted: _Wanted, reasons: Sequence[str], responder: HttpResponder) -> None:
        lines = []
        for name, reason in zip(wanted.checks, reasons, strict=True):
            if name in wanted.excluded:
                lines.append(f"[+]{name} excluded: ok\n")
            else:
                lines.append(f"[-]{name} failed: {reason}\n" if reason else f"[+]{name} ok\n")
        if any(reasons):
            responder.reply(503, TEXT, ("".join(lines) + "\n").encode())
        else:
            responder.reply(200, TEXT, ("".join(lines if wanted.verbose else ()) + "ok\n").encode())

    def _check_corruption(self, _responder: HttpResponder, report: Report) -> None:
        def judge(alarms: Sequence[tuple[MemberId, int]]) -> None:
            report("alarm activated: CORRUPT" if any(alarm == CORRUPT for _, alarm in alarms) else "")

        self._node.alarms(judge)

    def _check_serializable_read(self, _responder: HttpResponder, report: Report) -> None:
        # The state machine answers, so it lives; what it answers does not matter.
        self._node.sizes(lambda _sizes: report(""))

    def _check_linearizable_read(self, responder: HttpResponder, report: Report) -> None:
        self._node.read(CheckRead(responder, lambda status: report(status.message)), lambda _view: report(""))

    def _check_non_learner(self, _responder: HttpResponder, report: Report) -> None:
        report("not supported for learner" if self._node.is_learner else "")
