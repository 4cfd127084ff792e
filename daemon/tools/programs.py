"""All tools by name, and how one is run: its exit code, and its refusals as one line on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from daemon.conversion import NotConvertible
from daemon.data_directory import DataDirectoryRefused
from daemon.restore import RestoreRefused
from daemon.snapshot_options import SaveFailed
from daemon.tools.commands import BadArguments, HelpWanted, read
from daemon.tools.completion import completion_command
from daemon.tools.defrag import DEFRAG
from daemon.tools.dump_db import DUMP_DB
from daemon.tools.dump_log import DUMP_LOG
from daemon.tools.hashkv import HASHKV
from daemon.tools.migrate import MIGRATE
from daemon.tools.names import CHECK_CONFIG
from daemon.tools.offline import NotUsable
from daemon.tools.output import put_line
from daemon.tools.snapshot import SNAPSHOT
from storage.bbolt.pages import BoltError
from storage.schema import StorageError
from wal.errors import WalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.tools.commands import Command

EXIT_FAILED = 1
EXIT_BAD_ARGUMENTS = 128
"""Both are etcdctl's."""

_OFFLINE = (SNAPSHOT, HASHKV, DEFRAG, DUMP_LOG, DUMP_DB, MIGRATE)
_OTHERS = (
    (CHECK_CONFIG, "Read a configuration file and name every fault in it"),
    ("gateway", "Pass TCP connections on to the members of a cluster"),
    ("grpc-proxy", "Serve the API in front of a cluster, with fewer reads and watchers behind"),
    ("help", "Say how actcd, or one of these commands, is used"),
    ("version", "Print the version"),
)
_COMPLETION = completion_command(_OFFLINE, _OTHERS)
TOOLS: dict[str, Command] = {tool.name: tool for tool in (*_OFFLINE, _COMPLETION)}

_REFUSALS = (
    BoltError,
    DataDirectoryRefused,
    NotConvertible,
    NotUsable,
    RestoreRefused,
    SaveFailed,
    StorageError,
    WalError,
)


def run(tool: Command, arguments: Sequence[str]) -> int:
    """Do what the *arguments* behind the tool's name ask for, and return the exit code."""
    try:
        asked = read(tool, arguments)
        if isinstance(asked, HelpWanted):
            put_line(asked.text)
            return 0
        command, given = asked
        assert command.run is not None, command.name
        command.run(given)
        sys.stdout.flush()
    except BadArguments as error:
        return _failed(error, EXIT_BAD_ARGUMENTS)
    except _REFUSALS as error:
        return _failed(error, EXIT_FAILED)
    except BrokenPipeError:
        return _left_alone()
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _failed("interrupted", EXIT_FAILED)
    return 0


def _failed(error: object, exit_code: int) -> int:
    sys.stderr.write(f"Error: {error}\n")
    return exit_code


def _left_alone() -> int:
    """Whoever reads (``| head``) has seen enough: leave without the interpreter's complaint about its last flush."""
    sys.stdout = None
    return 0
