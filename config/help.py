"""The text of ``--help``, made from the schema."""

from __future__ import annotations

from itertools import groupby

from config.flags import OTHER_FLAGS
from config.schema import DECLARED

USAGE = """\
Usage:

  actcd [flags]
    Start a member.

  actcd --config-file FILE
    Start a member with the settings in FILE; all other flags and all environment variables are ignored then.

  actcd check-config FILE
    Read FILE, name every fault in it, and exit.

  actcd snapshot save|status|restore FILE [flags]
    Fetch a snapshot from a member, check one, or make a data directory from one.

  actcd hashkv PATH, actcd dump-db ..., actcd dump-log PATH
    Look at what a member that does not run has stored.

  actcd defrag --data-dir DIR, actcd migrate --data-dir DIR ...
    Give back the space of what was deleted; come from etcd, or go back.

  actcd completion bash|zsh|fish
    Print a script that completes all this in your shell.

  actcd COMMAND --help
    Say more about one of the commands above.

  actcd gateway start [flags]
    Pass TCP connections on to the members of a cluster; see actcd gateway --help.

  actcd grpc-proxy start [flags]
    Serve the API in front of a cluster, with fewer reads and watchers behind; see actcd grpc-proxy --help.

  actcd --version
    Print the version and exit.

  actcd -h | --help | help [COMMAND]
    Print this text, or that of a command, and exit.

Every flag has an environment variable: --listen-client-urls is ETCD_LISTEN_CLIENT_URLS. A flag and its variable
exclude each other.
"""


def help_text() -> str:
    """Return usage and all flags, in etcd's sections."""
    parts = [USAGE]
    for title, group in groupby(DECLARED, key=lambda declared: declared.title):
        parts.append(f"\n{title}:\n")
        for declared in group:
            setting = declared.setting
            if setting.flag:
                parts.append(f"  --{setting.name} '{setting.default_text}'\n    {setting.meaning}\n")
    parts.append("\nOther:\n")
    parts.extend(f"  --{name} '{default}'\n    {meaning}\n" for name, default, meaning in OTHER_FLAGS)
    return "".join(parts)
