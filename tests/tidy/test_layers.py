"""Imports point one way, and the core keeps to itself."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from core import errors
from services.errors import CODES

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "core": set(),
    "proto": set(),
    "config": set(),
    "wal": {"core", "proto"},
    "storage": {"core"},
    "net": set(),
    "services": {"core", "net", "proto"},
    "actors": {"core", "net", "proto", "services", "storage", "wal"},
    "discovery": {"config", "net", "proto"},
    "proxy": {"config", "net"},
    "grpcproxy": {"actors", "core", "net", "proto", "services"},
    "daemon": {
        "actors",
        "config",
        "core",
        "discovery",
        "grpcproxy",
        "net",
        "proto",
        "proxy",
        "services",
        "storage",
        "wal",
    },
    "extensions": {"actors", "core", "net", "proto", "services", "storage"},
}
"""Who may import whom, beside itself; an arrow the other way would tie a decision to a thread or a socket."""

EXCEPTIONS = {
    ("core/apply", "proto"): "applying turns entries, which are protobuf messages, into commands",
    ("net/rafthttp", "core"): "its streams carry raft's messages, which are the core's types",
    ("net/rafthttp", "proto"): "on the wire these are raftpb",
    ("storage", "wal"): "large files are removed in one way, for the sake of the log's syncs",
    ("extensions", "wal"): "large files are removed in one way, for the sake of the log's syncs",
}

CORE_LIBRARIES = {"sortedcontainers", "google"}
"""What core may use beyond the standard library: sorted containers, and protobuf where it applies entries."""

IMPURE = {
    "asyncio",
    "logging",
    "os",
    "pathlib",
    "queue",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}
"""Standard modules through which a decision would depend on more than its arguments."""


@cache
def parsed(path: Path) -> ast.Module:
    """Return what the module at *path* says."""
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Return the top-level names that the module at *path* imports when it runs (not those for type checking only)."""
    found: set[str] = set()
    for node in _running(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.split(".")[0])
    return found


def _running(node: ast.AST) -> list[ast.AST]:
    """Return all nodes below *node*, without what stands under ``if TYPE_CHECKING``."""
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        nodes += [child, *_running(child)]
    return nodes


def modules(layer: str) -> list[Path]:
    """Return the modules of *layer* that people write."""
    return [path for path in sorted((ROOT / layer).rglob("*.py")) if "_pb2" not in path.name]


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_imports_point_one_way(layer: str) -> None:
    """A module imports only layers below its own, so a reader who starts at the bottom needs nothing from above."""
    wrong = []
    for path in modules(layer):
        folder = str(path.parent.relative_to(ROOT))
        for name in imports(path) & MAY_IMPORT.keys() - {layer} - MAY_IMPORT[layer]:
            if any(folder.startswith(place) and name == target for place, target in EXCEPTIONS):
                continue
            wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_core_is_pure() -> None:
    """The core uses no clock, thread, file or socket, so that one seed can replay a whole cluster."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("core")
        for name in sorted(imports(path) & IMPURE)
    ]
    assert wrong == []


def test_every_error_has_a_status() -> None:
    """Each condition that a client can be told of stands in the one table of codes."""
    named = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.EtcdError)}
    assert named - {errors.EtcdError} == CODES.keys()
