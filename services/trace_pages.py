"""The pages /debug/requests and /debug/events, where etcd has those of Go's trace package.

What they show is known anyhow: counts of calls, what waits for its answer, requests that took long, lines of the log.
No call is traced for them.  Keys, values and tokens are in none of it.  As in etcd they are served where the log level
is debug, and to this machine alone; everybody else gets Go's 401.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlencode

from core.metrics import Distribution
from services.access import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from core.metrics import Sample
    from net.rpc import HttpRequest, HttpResponder
    from services.node import Node

    LogLine = tuple[float, Mapping[str, Any]]
    """When it was written, in seconds since 1970; level, ts, caller and msg, then its fields."""
    LogLines = Callable[[], Sequence[LogLine]]
    """Returns the newest lines of the log, oldest first."""

LOCAL: Final = frozenset(("127.0.0.1", "::1", "localhost"))
HTML: Final = (("content-type", "text/html; charset=utf-8"), ("x-content-type-options", "nosniff"))
WAITING_MAX: Final = 100
"""Calls that wait of which each is shown, oldest first."""
ERRORS_S: Final = (("10s", 10), ("1m", 60), ("10m", 600), ("1h", 3600))
NAMED: Final = frozenset(("level", "ts", "caller", "msg"))
ERRORS: Final = frozenset(("error", "dpanic", "panic", "fatal"))

STYLE: Final = (
    "body{font-family:sans-serif} td,th{padding:0 1em 0 0;text-align:left;vertical-align:top}"
    " td{font-family:monospace;white-space:pre}"
)


class Waiting(NamedTuple):
    """A call that waits for its answer."""

    method: str
    peer: str
    since_s: float
    """How long it has waited."""


class InFlight(NamedTuple):
    """What clients of one listener wait for."""

    writes: Sequence[Waiting]
    """Oldest first."""
    read_count: int
    oldest_read_s: float
    streams: Sequence[tuple[str, str]]
    """Method and peer of those that have no end by themselves, oldest first."""


class TracePages:
    """Answers both pages on one listener."""

    def __init__(self, node: Node, lines: LogLines) -> None:
        self._node = node
        self._lines = lines

    def find(self, path: str) -> Callable[[HttpRequest, HttpResponder], None] | None:
        """Return what answers *path*, if anything does."""
        page = {"/debug/requests": self._requests, "/debug/events": self._events}.get(path)
        return None if page is None else lambda request, responder: for_this_machine(page, request, responder)

    def _requests(self, _request: HttpRequest, responder: HttpResponder) -> None:
        def answer(samples: Sequence[Sample]) -> None:
            now_s = self._node.wall_s()
            parts = [
                "<p>Calls of all listeners since the start; then what waits, and what took long, at this one.</p>",
                *method_table(samples),
                *time_table(samples),
                *flight_tables(self._node.in_flight()),
                "<h2>slow</h2>",
                *table(
                    ("ended", "method", "peer", "took"),
                    (
                        (f"{max(now_s - slow.ended_s, 0):.0f} s ago", slow.method, slow.peer, f"{slow.took_s:.3f} s")
                        for slow in reversed(self._node.slow_requests())
                    ),
                ),
            ]
            responder.reply(200, HTML, page("/debug/requests", parts))

        self._node.gather(answer)

    def _events(self, request: HttpRequest, responder: HttpResponder) -> None:
        families: dict[str, list[LogLine]] = defaultdict(list)
        for line in self._lines():
            families[family_of(line)].append(line)
        now_s = self._node.wall_s()
        rows = [
            (
                name,
                f"[{len(lines)} total]",
                *(f"[{errors_since(lines, now_s - seconds)} errs<{text}]" for text, seconds in ERRORS_S),
                f"[{errors_since(lines, 0)} errors]",
            )
            for name, lines in sorted(families.items())
        ]
        parts = [
            "<p>The newest lines of the log by where they come from.</p>",
            *table(
                ("", *[""] * (len(ERRORS_S) + 2)), rows, links={name: urlencode({"fam": name}) for name in families}
            ),
        ]
        wanted = parse_qs(request.query).get("fam", [""])[0]
        if wanted in families:
            parts += [f"<h2>{escape(wanted)}</h2>", *table(("when", "level", "event"), map(shown, families[wanted]))]
        responder.reply(200, HTML, page("/debug/events", parts))


def for_this_machine(
    handle: Callable[[HttpRequest, HttpResponder], None], request: HttpRequest, responder: HttpResponder
) -> None:
    """Let *handle* answer requests from this machine; others are not allowed."""
    host = request.peer.rpartition(":")[0].strip("[]").removeprefix("::ffff:")
    # Where a client comes through a unix socket there is no host, and it is on this machine.
    if host in LOCAL or not host:
        handle(request, responder)
    else:
        responder.reply(401, PLAIN, b"not allowed\n")


def method_table(samples: Iterable[Sample]) -> list[str]:
    """Return the calls by method: how many are under way, how many have ended, how."""
    started: Counter[str] = Counter()
    ended: dict[str, Counter[str]] = defaultdict(Counter)
    for family, value, labels in samples:
        if isinstance(value, Distribution):
            continue
        if family == "grpc_server_started_total":
            started[f"{labels[1]}/{labels[2]}"] += int(value)
        elif family == "grpc_server_handled_total" and value:
            ended[f"{labels[1]}/{labels[2]}"][labels[3]] += int(value)
    rows = [
        (
            method,
            f"[{count - ended[method].total()} active]",
            f"[{ended[method]['OK']} ok]",
            f"[{ended[method].total() - ended[method]['OK']} errors]",
            " ".join(f"{code}: {times}" for code, times in sorted(ended[method].items()) if code != "OK"),
        )
        for method, count in sorted(started.items())
        if count
    ]
    return table(("method", "", "", "", "ended otherwise"), rows)


def time_table(samples: Iterable[Sample]) -> list[str]:
    """Return how long requests took by their kind, each column with what took no longer than its bound."""
    found: dict[tuple[str, ...], list[int]] = {}
    bounds: tuple[float, ...] = ()
    for family, value, labels in samples:
        if family == "etcd_server_request_duration_seconds" and isinstance(value, Distribution):
            bounds = value.bounds
            before = found.get(labels, [0] * len(value.counts))
            found[labels] = [one + other for one, other in zip(before, value.counts, strict=True)]
    if not found:
        return []
    headings = ("kind", "", *(f"<={bound:g}s" for bound in bounds), "longer")
    rows = (
        (kind, "ok" if well == "true" else "failed", *(str(count or "") for count in counts))
        for (kind, well), counts in sorted(found.items())
    )
    return ["<h2>how long requests took</h2>", *table(headings, rows)]


def flight_tables(flight: InFlight) -> list[str]:
    """Return what waits for its answer."""
    streams = Counter(flight.streams)
    return [
        f"<h2>waiting: {len(flight.writes)} writes; {flight.read_count} reads, {flight.oldest_read_s:.3f} s</h2>",
        *table(
            ("method", "peer", "since"),
            ((write.method, write.peer, f"{write.since_s:.3f} s") for write in flight.writes[:WAITING_MAX]),
        ),
        f"<h2>open streams: {len(flight.streams)}</h2>",
        *table(
            ("method", "peer", "count"),
            ((method, peer, str(count)) for (method, peer), count in streams.most_common(WAITING_MAX)),
        ),
    ]


def family_of(line: LogLine) -> str:
    """Return the file that wrote *line*."""
    return str(line[1]["caller"]).partition(":")[0] or "?"


def errors_since(lines: Iterable[LogLine], since_s: float) -> int:
    """Count the errors among *lines* from *since_s* on."""
    return sum(line["level"] in ERRORS and written_s >= since_s for written_s, line in lines)


def shown(line: LogLine) -> tuple[str, str, str]:
    """Return *line* as a row."""
    written = line[1]
    fields = " ".join(f"{key}={value}" for key, value in written.items() if key not in NAMED)
    return written["ts"], written["level"], f"{written['msg']} {fields}".rstrip()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], links: Mapping[str, str] | None = None) -> list[str]:
    """Return a table; first cells that are in *links* lead to the page with that query."""
    lines = ["<table>"]
    if any(headings):
        lines.append(f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in headings)}</tr>")
    for first, *cells in rows:
        query = (links or {}).get(first)
        text = escape(first) if query is None else f'<a href="?{escape(query)}">{escape(first)}</a>'
        lines.append(f"<tr><td>{text}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    lines.append("</table>")
    return lines


def page(title: str, parts: Iterable[str]) -> bytes:
    """Return a whole page."""
    body = "\n".join(parts)
    return (
        f"<!DOCTYPE html>\n<html>\n<head>\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    ).encode()
