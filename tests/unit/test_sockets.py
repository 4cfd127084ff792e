"""Listening sockets: TCP and unix, what is in their way, and what they leave behind."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from config.urls import parse_url
from daemon.sockets import ListenRefused, file_of, listen, remove_file

if TYPE_CHECKING:
    from pathlib import Path


def test_tcp() -> None:
    """A port that is taken is refused with a sentence, unless all who listen there agree to share it."""
    with listen(parse_url("http://localhost:0"), reuse_port=True) as first:
        host, port = first.getsockname()
        assert (host, file_of(first)) == ("127.0.0.1", "")
        with listen(parse_url(f"https://127.0.0.1:{port}"), reuse_port=True):
            pass
        with pytest.raises(ListenRefused, match=f"cannot listen on http://127.0.0.1:{port}: Address already in use"):
            listen(parse_url(f"http://127.0.0.1:{port}"))


def test_unix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Etcd's names: host and port are a file's name; a socket that nobody listens on any more is replaced."""
    monkeypatch.chdir(tmp_path)
    url = parse_url("unix://localhost:2379")
    with listen(url) as first:
        assert file_of(first) == "localhost:2379"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("localhost:2379")
        with pytest.raises(ListenRefused, match="Address already in use"):
            listen(url)
    assert (tmp_path / "localhost:2379").is_socket()
    with listen(url) as second:
        remove_file(file_of(second))
    assert not (tmp_path / "localhost:2379").exists()
    remove_file("localhost:2379")
    remove_file("")


def test_unix_with_something_in_the_way(tmp_path: Path) -> None:
    """No file of somebody else's is removed, and a name that no socket can have is refused in words."""
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ListenRefused, match="a file of that name exists and is no socket"):
        listen(parse_url(f"unixs://{file}"))
    assert file.read_text() == "mine"
    with pytest.raises(ListenRefused, match="cannot listen on unix:"):
        listen(parse_url(f"unix://{tmp_path}/{'x' * 120}"))
