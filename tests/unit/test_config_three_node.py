"""The three files that ``make cluster`` starts: one cluster, and nothing shared that must not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.load import Machine, load_file
from config.refusals import bootstrap_refusals
from core.membership.member import Member

FOLDER = Path(__file__).resolve().parents[2] / "config" / "three-node"
MACHINE = Machine(read_text=lambda path: Path(path).read_text(), default_host=lambda: None)
CONFIGS = [load_file(str(path), MACHINE).config for path in sorted(FOLDER.glob("*.yaml"))]


def test_there_are_three() -> None:
    """Two could not lose one."""
    assert [config.member.name for config in CONFIGS] == ["node1", "node2", "node3"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.member.name)
def test_each_may_found_the_cluster(config: object) -> None:
    """A new user's first start must not end in a refusal."""
    found = next(each for each in CONFIGS if each is config)
    assert bootstrap_refusals(found, lambda host: host) == ()


def test_all_derive_the_same_ids() -> None:
    """They find each other's ids without talking, so initial cluster and token are the same in all files."""
    founded = {
        tuple(
            Member.new(each.name, map(str, each.peer_urls), config.clustering.initial_cluster_token).id
            for each in config.clustering.initial_cluster
        )
        for config in CONFIGS
    }
    assert len(founded) == 1


def test_nothing_is_shared_on_one_machine() -> None:
    """Directories and ports are each member's own."""
    own = [
        (config.member.data_dir, *map(str, config.member.listen_client_urls), *map(str, config.member.listen_peer_urls))
        for config in CONFIGS
    ]
    places = [place for each in own for place in each]
    assert len(places) == len(set(places)) == 9
