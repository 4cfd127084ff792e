"""`etcdctl member` against a member of ours and one of etcd's: the same words, whatever is asked."""

import re
from pathlib import Path

import pytest

from tests.e2e.harness import Server, actcd, real_etcd, run_etcdctl, running

pytestmark = pytest.mark.e2e

MINE, LEARNER, PEER_URL, OTHER = "MINE", "LEARNER", "PEER_URL", "http://127.0.0.1:1"
COMMANDS = (
    "add a --peer-urls=PEER_URL",
    "add a --peer-urls=http://127.0.0.1:1/path",
    "remove 1234",
    f"update 1234 --peer-urls={OTHER}",
    "promote 1234",
    "promote MINE",
    "remove MINE",
    f"add l --learner --peer-urls={OTHER}",
    "add l --learner --peer-urls=http://127.0.0.1:2",
    "promote LEARNER",
    "update LEARNER --peer-urls=PEER_URL",
    "remove MINE",
    "list",
    # Here etcd 3.5.1 forgets that it is a learner (later versions do not), so nothing is asked that would show it.
    "update LEARNER --peer-urls=http://127.0.0.1:3",
    "remove LEARNER",
    "remove LEARNER",
    # Not the address from before: with it and the same second the id would be the one that was removed.
    "add l --learner --peer-urls=http://127.0.0.1:4",
    "list",
)
"""In this order: a learner comes, is changed, and goes; between them all that is refused."""

_ERROR = re.compile(r'"error":"([^"]*)"|^(Error: .*)$', re.MULTILINE)
_ID = re.compile(r" *\b[0-9a-f]{12,16}\b")
"""With what fills up a short one."""


def told(server: Server) -> list[tuple[str, int, list[str], str]]:
    """What each command prints, with what differs between servers left out."""
    peer_url = f"http://127.0.0.1:{server.peer_reservation.getsockname()[1]}"
    ids = {PEER_URL: peer_url, MINE: "", LEARNER: ""}
    found = []
    for command in COMMANDS:
        for line in run_etcdctl(server, "member", "list").stdout.splitlines():
            ids[LEARNER if "unstarted" in line else MINE] = line.split(",")[0]
        words = [re.sub("|".join(ids), lambda match: ids[match[0]], word) for word in command.split()]
        done = run_etcdctl(server, "member", *words)
        output = done.stdout
        for name, text in (("ENDPOINT", server.endpoint), ("PEER", peer_url)):
            output = output.replace(text, name)
        # Ids are hashes of the time, and have no order that lasts.
        lines = (
            sorted(_ID.sub("ID", output).splitlines()) if command == "list" else _ID.sub("ID", output).splitlines()[:1]
        )
        errors = [first or second for first, second in _ERROR.findall(done.stderr)]
        found.append((command, done.returncode, errors, "\n".join(lines)))
    return found


def test_every_refusal_is_etcds(tmp_path: Path) -> None:
    """Operators and their scripts know these sentences, and what they print when all goes well."""
    with running(Server(real_etcd(), tmp_path / "etcd")) as reference:
        expected = told(reference)
    with running(Server(actcd(), tmp_path / "actcd")) as server:
        found = told(server)
    assert found == expected
    refusals = {error for _, _, errors, _ in expected for error in errors if error.startswith("Error: etcdserver")}
    assert len(refusals) >= 6, refusals
