"""What the program ``actcd`` does: reads the command line and runs what it asks for.

Exit codes are etcd's: 2 for flags that cannot be read, 1 for any other refusal or a crash, 0 for help; a stop by signal
ends with that signal.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from core.version import SERVER_VERSION
from daemon.command_line import (
    CheckConfig,
    Refused,
    RunGateway,
    RunGrpcProxy,
    RunOldProxy,
    RunServer,
    RunTool,
    ShowHelp,
    ShowVersion,
    check_config,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.command_line import Command


def main() -> NoReturn:
    """Do what the command line asks for, and exit."""
    if sys.flags.optimize:
        sys.exit("actcd does not run under python -O: its assertions guard your data")
    act = action(parse(sys.argv[1:], os.environ))
    gc.freeze()
    gc.enable()
    sys.exit(act())


def action(command: Command) -> Callable[[], int]:
    """Return what does what the *command* asks for and gives the exit code; it needs to load no more."""
    match command:
        case RunServer():
            from daemon.process import run as run_member  # noqa: PLC0415 - the others do without it

            return partial(run_member, command.config, command.notes)
        case ShowHelp():
            return partial(_print, command.text)
        case ShowVersion():
            return partial(_print, version_text())
        case CheckConfig():
            return partial(_check, command)
        case RunGateway():
            from daemon.gateway_command import run as run_gateway  # noqa: PLC0415 - see above

            return partial(run_gateway, command.arguments)
        case RunTool():
            from daemon.tools import programs  # noqa: PLC0415 - see above

            return partial(programs.run, programs.TOOLS[command.name], command.arguments)
        case RunGrpcProxy():
            from daemon.grpc_proxy import run as run_grpc_proxy  # noqa: PLC0415 - see above

            return partial(run_grpc_proxy, command.arguments)
        case RunOldProxy():
            from daemon.old_proxy import run as run_old_proxy  # noqa: PLC0415 - see above

            return partial(run_old_proxy, command.config, command.notes)
        case Refused():
            return partial(_refuse, command)


def _print(text: str) -> int:
    print(text)  # noqa: T201 - asked for
    return 0


def _check(command: CheckConfig) -> int:
    report = check_config(command)
    print("\n".join(report.lines))  # noqa: T201 - asked for
    return report.exit_code


def _refuse(refused: Refused) -> int:
    print("\n".join(refused.lines), file=sys.stderr)  # noqa: T201 - there is no logger yet
    return refused.exit_code


def version_text() -> str:
    """Return what --version prints: etcd's four lines, with Python in the place of Go."""
    return "\n".join(
        (
            f"etcd Version: {SERVER_VERSION}",
            "Git SHA: Not provided (actcd)",
            f"Python Version: {platform.python_version()}",
            f"Python OS/Arch: {sys.platform}/{platform.machine()}",
        )
    )
