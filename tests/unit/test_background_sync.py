"""Syncs in the kernel, on a real disk and a real loop."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from wal import background_sync
from wal.background_sync import BACKENDS, BackgroundSync, error_number, usable_in

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 10.0


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> BackgroundSync:
    try:
        return BackgroundSync(request.param)
    except (ImportError, OSError) as error:
        pytest.skip(f"not on this kernel: {error}")


def test_the_loop_notices_the_end_of_each_sync(backend: BackgroundSync, tmp_path: Path) -> None:
    """One after the other, as the log asks for them; the loop is free meanwhile."""

    async def sync_three_times() -> list[OSError | None]:
        ends: asyncio.Queue[OSError | None] = asyncio.Queue()
        backend.watch(ends.put_nowait)
        told = []
        with (tmp_path / "file").open("wb", buffering=0) as file:
            for _ in range(3):
                file.write(b"x" * 5000)
                backend.begin(file.fileno())
                assert backend.busy
                told.append(await asyncio.wait_for(ends.get(), WAIT_S))
                assert not backend.busy
        backend.close()
        return told

    assert asyncio.run(sync_three_times()) == [None, None, None]


def test_an_end_is_waited_for_where_no_loop_runs_any_more(backend: BackgroundSync, tmp_path: Path) -> None:
    """When everything stops, the log is closed behind its last sync."""
    ends: list[OSError | None] = []
    backend.ended = ends.append
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"x")
        backend.begin(file.fileno())
        assert backend.wait(WAIT_S)
    assert ends == [None]
    assert backend.wait(0), "nothing is under way"


def test_what_cannot_be_synced_is_told(backend: BackgroundSync) -> None:
    """A failure keeps its number: a full disk is survived, any other failure is not."""
    reading, writing = os.pipe()
    ends: list[OSError | None] = []
    backend.ended = ends.append
    try:
        backend.begin(writing)
        assert backend.wait(WAIT_S)
        [error] = ends
        assert error is not None
        assert error.errno is not None
        assert os.strerror(error.errno) == error.strerror
    except OSError:
        assert not backend.busy
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("number", [0, errno.EIO, errno.ENOSPC])
def test_a_failure_is_one_from_either_backend(number: int) -> None:
    """One tells it with its sign and one without; taken for success it would be lost data."""
    assert error_number(-number) == number
    assert error_number(-number % 2**64) == number


def test_the_best_backend_that_works_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers forbid one, old kernels lack the other, and some wheels of caio have neither."""
    working = [name for name in BACKENDS if (found := usable_in(tmp_path)) is not None and found.name == name]
    for names in (["no_such_backend", *working], [*working, "no_such_backend"], ["no_such_backend"]):
        monkeypatch.setattr(background_sync, "BACKENDS", names)
        found = usable_in(tmp_path)
        assert (None if found is None else [found.name]) == (working or None if len(names) > 1 else None)


def test_a_backend_whose_first_sync_fails_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are file systems that take writes and no syncs of this kind."""

    def refused(self: BackgroundSync, _descriptor: int) -> None:
        raise OSError(f"{self.name}: not here")

    monkeypatch.setattr(BackgroundSync, "begin", refused)
    assert usable_in(tmp_path) is None
