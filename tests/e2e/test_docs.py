"""What the documents show works as it stands there: their code is cut out and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.harness import ROOT, Server, actcd, etcd_tool, running, wait_for

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.e2e


def blocks(document: str, language: str) -> list[str]:
    """Return the code of *language* in a document, in order."""
    text = (ROOT / "docs" / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def named(document: str, name: str) -> str:
    """Return the block whose first line says that it is the file *name*."""
    return next(block for block in blocks(document, "python") if block.startswith(f"# {name}\n"))


def test_the_tutorial_of_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module, its configuration and its commands, in a real process; and what it says of a restart."""
    (tmp_path / "hits.py").write_text(named("adding-an-extension.md", "hits.py"))
    settings: dict[str, Any] = yaml.safe_load(blocks("adding-an-extension.md", "yaml")[0])
    commands = blocks("adding-an-extension.md", "sh")[0].splitlines()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running(Server(actcd(), tmp_path / "server", settings)) as server:

        def run(command: str) -> str:
            words = command.replace("127.0.0.1:2379", server.endpoint).split()
            if words[0] == "etcdctl":
                words = [etcd_tool("etcdctl"), f"--endpoints={server.endpoint}", *words[1:]]
            else:
                words = [words[0], "-s", *words[1:]]
            return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20.0).stdout

        curl = next(command for command in commands if command.startswith("curl"))
        wait_for(lambda: run(curl) == "0\n", 10.0, "the extension runs")
        for command in commands:
            run(command)
        wait_for(lambda: run(curl) == "2\n", 10.0, "both puts are counted")
        wait_for(lambda: run("etcdctl get hits --print-value-only").startswith("2 "), 10.0, "the count is stored")
        server.kill()
        server.start()
        run("etcdctl put user/cid 3")
        wait_for(lambda: run(curl) == "3\n", 10.0, "the count goes on where it was")


def test_the_fixture_of_a_test_suite(tmp_path: Path) -> None:
    """As somebody else's test suite would run it."""
    (tmp_path / "test_store.py").write_text(named("embedding.md", "test_store.py"))
    (tmp_path / "short.py").write_text(blocks("embedding.md", "python")[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (["short.py"], ["-m", "pytest", "-q", "-p", "no:randomly", "test_store.py"]):
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100.0,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "127.0.0.1:" in ran.stdout or "2 passed" in ran.stdout, ran.stdout
