"""Run several members on this machine until Ctrl-C: python -m tools.cluster config/three-node/*.yaml.

Each member is a process of its own; its output comes here, each line marked with the name of its file.  One that ends
or is killed stays down and the others go on, so that one can watch what a cluster does about it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

STOP_TIMEOUT_S = 20.0


def main(config_files: Sequence[str]) -> int:
    """Start a member for each of *config_files*, and wait for them."""
    if not config_files:
        sys.stderr.write("usage: python -m tools.cluster CONFIG_FILE...\n")
        return 2
    members = {Path(file).stem: _start(file) for file in config_files}
    copiers = [threading.Thread(target=_copy, args=member) for member in members.items()]
    for copier in copiers:
        copier.start()

    def stop(_number: int, _frame: FrameType | None) -> None:
        for process in members.values():
            if process.poll() is None:
                process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for name, process in members.items():
        process.wait()
        sys.stderr.write(f"{name} (process {process.pid}) has ended\n")
    for copier in copiers:
        copier.join(STOP_TIMEOUT_S)
    return 0


def _start(config_file: str) -> subprocess.Popen[str]:
    # In a session of its own, so that Ctrl-C comes to this process alone, which stops them in order.
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "--config-file", config_file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    sys.stderr.write(f"{Path(config_file).stem} is process {process.pid}\n")
    return process


def _copy(name: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None, name
    for line in process.stdout:
        sys.stdout.write(f"{name} | {line}")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
