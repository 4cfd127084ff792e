"""Generate docs/compatibility.md: all of etcd 3.7's surface and its state here, read from our own tables.

``python tools/genfeatures.py`` writes it.  What etcd has is in tools/etcd_3_7.json; what is here comes from the routes,
settings, gates and families that the server itself uses, so the page cannot promise what is not there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from config.flags import FLAG_NAMES  # noqa: E402 - needs the path above
from config.gates import GATES  # noqa: E402
from config.retired import RETIRED_FLAGS  # noqa: E402
from config.schema import BY_NAME  # noqa: E402
from core.version import SERVER_VERSION  # noqa: E402
from daemon.tools.programs import TOOLS  # noqa: E402
from services.gateway import PATHS  # noqa: E402
from services.metric_families import FAMILIES  # noqa: E402
from services.routes import client_routes  # noqa: E402
from tests.fake_node import FakeNode  # noqa: E402

PAGE = ROOT / "docs" / "compatibility.md"
ETCD = ROOT / "tools" / "etcd_3_7.json"

WORKS, NOT_YET, WITHOUT_EFFECT = "works", "not yet", "taken, without effect"
_CODE = ("services", "actors", "net", "daemon")
_PROGRAMS = {
    "etcd": "",
    "etcd gateway start": "gateway",
    "etcd grpc-proxy start": "grpc-proxy",
    "etcdctl snapshot save": "snapshot",
    "etcdutl snapshot status": "snapshot",
    "etcdutl snapshot restore": "snapshot",
    "etcdutl hashkv": "hashkv",
    "etcdutl defrag": "defrag",
    "etcdutl migrate": "migrate",
    "etcdutl completion": "completion",
    "etcd-dump-logs": "dump-log",
    "etcd-dump-db": "dump-db",
}
"""Which word of ours starts what."""

LATER_RPCS = frozenset({"etcdserverpb.KV/RangeStream", "grpc.health.v1.Health/List"})
"""What releases of etcd after the one that we tell have added."""

Row = tuple[str, str]


def rpc_rows(names: Iterable[str]) -> list[Row]:
    """Return each RPC and whether a client listener serves it."""
    routes = client_routes(FakeNode())
    served = {*routes.unary, *routes.streams}
    return [(name, WORKS if f"/{name}" in served else NOT_YET) for name in names]


def route_rows(paths: Iterable[str]) -> list[Row]:
    """Return each route of the JSON gateway and whether it leads to an RPC that is served."""
    routes = client_routes(FakeNode())
    served = {*routes.unary, *routes.streams}
    ours = {path for service, paths in PATHS.items() for path, name in paths.items() if f"/{service}/{name}" in served}
    return [(f"/v3/{path}", WORKS if path in ours else NOT_YET) for path in paths]


def page_rows(paths: Iterable[str]) -> list[Row]:
    """Return each page and whether our code names its path."""
    code = "\n".join(path.read_text() for folder in _CODE for path in sorted((ROOT / folder).rglob("*.py")))
    return [(path, WORKS if f'"{path}' in code or f'"{path.rstrip("/")}' in code else NOT_YET) for path in paths]


def flag_rows(names: Iterable[str]) -> list[Row]:
    """Return each flag and what becomes of it."""

    def state(name: str) -> str:
        if name in BY_NAME:
            return WORKS
        if name in RETIRED_FLAGS:
            return WITHOUT_EFFECT
        return WORKS if name in FLAG_NAMES else NOT_YET

    return [(f"--{name}", state(name)) for name in names]


def gate_rows(names: Iterable[str]) -> list[Row]:
    """Return each feature gate, whether it can be switched, and its default where that is not etcd's."""
    ours = {gate.name: gate for gate in GATES}

    def state(name: str) -> str:
        if name not in ours:
            return NOT_YET
        default = "on" if ours[name].default else "off"
        return f"{WORKS if ours[name].has_effect else WITHOUT_EFFECT}, {default} by default"

    return [(name, state(name)) for name in names]


def metric_rows(names: Iterable[str]) -> list[Row]:
    """Return each family of metrics and whether it is in our table."""
    return [(name, WORKS if name in FAMILIES or name.startswith("process_") else NOT_YET) for name in names]


def program_rows(names: Iterable[str]) -> list[Row]:
    """Return each program of etcd and the command that does it here."""

    def state(name: str) -> str:
        word = _PROGRAMS[name]
        assert not word or word in TOOLS or word in {"gateway", "grpc-proxy"}, word
        return f"`actcd {word}`".replace(" `", "`") if word else "`actcd`"

    return [(name, state(name)) for name in names]


SECTIONS: tuple[tuple[str, str, str, Callable[[Iterable[str]], list[Row]]], ...] = (
    ("programs", "Programs", "of etcd", program_rows),
    ("rpcs", "RPCs", "gRPC method", rpc_rows),
    ("routes", "JSON gateway", "route", route_rows),
    ("pages", "Pages", "of client, metrics and peer listeners", page_rows),
    ("flags", "Flags", "with their variables and file keys", flag_rows),
    ("gates", "Feature gates", "gate", gate_rows),
    ("metrics", "Metrics", "family", metric_rows),
)


def page() -> str:
    """Return the text of the page."""
    etcd: dict[str, Any] = json.loads(ETCD.read_text())
    tables = [(title, what, rows(etcd[key])) for key, title, what, rows in SECTIONS]
    late = [name for name, state in rpc_rows(etcd["rpcs"]) if state == NOT_YET and name not in LATER_RPCS]
    parts = [
        "# etcd 3.7, and what of it is here\n\nMade by `python tools/genfeatures.py` from the tables that the server ",
        f"uses; what etcd has is that of {etcd['source']}.\n\nClients are told that this is {SERVER_VERSION}, by ",
        "which they switch features on: ",
        f"of that release {', '.join(f'`{name}`' for name in late)} is missing.\n\n"
        if late
        else "all of them work.\n\n",
        "| | of etcd | here | missing |\n| --- | --- | --- | --- |\n",
    ]
    for title, _, rows in tables:
        missing = [name for name, state in rows if state.startswith(NOT_YET)]
        shown = ", ".join(f"`{name}`" for name in missing) or "nothing"
        parts.append(f"| {title} | {len(rows)} | {len(rows) - len(missing)} | {shown} |\n")
    for title, what, rows in tables:
        parts.append(f"\n## {title}\n\n| {what} | state |\n| --- | --- |\n")
        parts.extend(f"| `{name}` | {state} |\n" for name, state in rows)
    return "".join(parts)


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
