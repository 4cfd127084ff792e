"""The generated sample file and the file that ``make run`` uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.file import read_file
from config.load import Machine, load_file
from config.schema import DECLARED, Config
from tools.gensample import SAMPLE, sample

SINGLE_NODE = SAMPLE.with_name("single-node.yaml")


def machine_with(text: str) -> Machine:
    return Machine(read_text=lambda _path: text, default_host=lambda: None)


def uncommented() -> str:
    """Return the sample with every key set, as its own head explains."""
    return re.sub(r"^#(?! \S|\n)", "", sample(), flags=re.MULTILINE)


def test_sample_is_fresh() -> None:
    """The file in the tree is what the schema says today, so that it never lies."""
    assert SAMPLE.read_text(encoding="utf-8") == sample()


@pytest.mark.parametrize("text", [sample(), uncommented()], ids=["as it is", "every key set"])
def test_sample_loads_as_the_defaults(text: str) -> None:
    """The sample changes nothing, neither as it is nor with all its keys set: they show the defaults."""
    loaded = load_file("sample", machine_with(text))
    assert loaded.config == load_file("nothing", machine_with("")).config
    assert not [note for note in loaded.notes if "key" in note.fields]


def test_sample_holds_every_key() -> None:
    """Whoever looks for a key finds it in the sample."""
    values = read_file(uncommented())
    assert values.by_name.keys() == {each.setting.name for each in DECLARED if each.setting.file_path}
    assert values.faults == ()


def test_single_node_file_loads_without_a_word() -> None:
    """The first file that a newcomer runs has nothing to be warned about."""
    loaded = load_file(str(SINGLE_NODE), Machine(lambda path: Path(path).read_text("utf-8"), lambda: None))
    assert loaded.notes == ()
    assert loaded.config.member.data_dir == "default.etcd"
    assert [(url.host, url.port) for url in loaded.config.member.listen_client_urls] == [("127.0.0.1", 2379)]
    assert [member.name for member in loaded.config.clustering.initial_cluster] == [loaded.config.member.name]


def test_defaults_are_a_config() -> None:
    """Config() alone is what a schema without any value gives, before directories and URLs are derived."""
    assert Config().member.heartbeat_interval_ms == 100
    assert Config().own.engine == "native"
