"""What the program ``actcd`` does: reads the command line and runs what it asks for.

Exit codes are etcd's: 2 for flags that cannot be read, 1 for any other refusal or a crash, 0 for help; a stop by signal
ends with that signal.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import NoReturn

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
from daemon.process import run


def main() -> NoReturn:
    """Do what the command line asks for, and exit."""
    if sys.flags.optimize:
        sys.exit("actcd does not run under python -O: its assertions guard your data")
    command = parse(sys.argv[1:], os.environ)
    match command:
        case RunServer():
            sys.exit(run(command.config, command.notes))
        case ShowHelp():
            print(command.text)  # noqa: T201 - asked for
            sys.exit(0)
        case ShowVersion():
            print(version_text())  # noqa: T201 - asked for
            sys.exit(0)
        case CheckConfig():
            report = check_config(command)
            print("\n".join(report.lines))  # noqa: T201 - asked for
            sys.exit(report.exit_code)
        case RunGateway():
            from daemon import gateway_command  # noqa: PLC0415 - members start without it

            sys.exit(gateway_command.run(command.arguments))
        case RunTool():
            from daemon.tools import programs  # noqa: PLC0415 - see above

            sys.exit(programs.run(programs.TOOLS[command.name], command.arguments))
        case RunGrpcProxy():
            from daemon import grpc_proxy  # noqa: PLC0415 - see above

            sys.exit(grpc_proxy.run(command.arguments))
        case RunOldProxy():
            from daemon import old_proxy  # noqa: PLC0415 - see above

            sys.exit(old_proxy.run(command.config, command.notes))
        case Refused():
            print("\n".join(command.lines), file=sys.stderr)  # noqa: T201 - there is no logger yet
            sys.exit(command.exit_code)


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
