"""The pages below /debug/: the variables of the process, profiles and traces where the configuration asks for them.

How a profile is made is not known here; it is handed in, and runs on a thread of its own.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from services.health_checks import TEXT
from services.trace_pages import TracePages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import HttpRequest, HttpResponder, Status
    from services.access import Profile
    from services.node import Node
    from services.trace_pages import LogLines

PREFIX: Final = "/debug/pprof/"
PROFILE_DEFAULT_S: Final = 30.0
PROFILE_MAX_S: Final = 300.0

INDEX: Final = b"""/debug/pprof/

cmdline: the command line
goroutine: the stack of every thread
heap: the lines that allocated what is in use; needs PYTHONTRACEMALLOC=1 in the environment
profile: folded stacks, sampled for ?seconds= (30)
"""


class DebugPages:
    """Answers below /debug/ on one listener."""

    def __init__(self, node: Node, profiles: Mapping[str, Profile], lines: LogLines | None = None) -> None:
        """Offer *profiles* by their names; without any, or without *lines* of the log, there are no such pages."""
        self._node = node
        self._profiles = profiles
        self._traces = None if lines is None else TracePages(node, lines)

    def find(self, path: str) -> Callable[[HttpRequest, HttpResponder], None] | None:
        """Return what answers *path*, if anything does."""
        if path == "/debug/vars":
            return self._variables
        traced = None if self._traces is None else self._traces.find(path)
        if traced is not None:
            return traced
        if not self._profiles or not path.startswith(PREFIX):
            return None
        name = path.removeprefix(PREFIX)
        if not name:
            return lambda _request, responder: responder.reply(200, TEXT, INDEX)
        if name == "cmdline":
            return lambda _request, responder: responder.reply(200, TEXT, "\0".join(sys.argv).encode())
        job = self._profiles.get(name)
        if job is None:
            return None
        return lambda request, responder: self._node.profile(_Text(responder), partial(job, seconds_in(request.query)))

    def _variables(self, _request: HttpRequest, responder: HttpResponder) -> None:
        def with_raft(status: Mapping[str, object]) -> None:
            self._node.describe_extensions(lambda extensions: answer(status, extensions))

        def answer(status: Mapping[str, object], extensions: Sequence[Mapping[str, object]]) -> None:
            variables = {
                "cmdline": sys.argv,
                **({"extensions": list(extensions)} if extensions else {}),
                "file_descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                "memstats": memory(),
                "raft.status": status,
            }
            lines = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in variables.items())
            body = f"{{\n{lines}\n}}\n".encode()
            responder.reply(200, (("content-type", "application/json; charset=utf-8"),), body)

        self._node.raft_status(with_raft)


class _Text:
    """Takes a profile."""

    def __init__(self, responder: HttpResponder) -> None:
        self._responder = responder

    @property
    def done(self) -> bool:
        """See Answerable."""
        return self._responder.done

    def reply(self, body: bytes) -> None:
        """See Answerable."""
        self._responder.reply(200, TEXT, body)

    def fail(self, status: Status) -> None:
        """See Answerable."""
        self._responder.reply(503, TEXT, status.message.encode() + b"\n")


def memory() -> dict[str, object]:
    """Return what the interpreter tells of its memory."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counts = gc.get_stats()
    return {
        "MaxResidentBytes": usage.ru_maxrss * 1024,
        "AllocatedBlocks": sys.getallocatedblocks(),
        "NumGC": sum(generation["collections"] for generation in counts),
        "Collected": sum(generation["collected"] for generation in counts),
    }


def seconds_in(query: str) -> float:
    """Return how long to sample."""
    text = parse_qs(query).get("seconds", [""])[0]
    wanted_s = float(text) if text.isascii() and text.isdigit() and len(text) < 6 else PROFILE_DEFAULT_S
    return min(wanted_s, PROFILE_MAX_S)
