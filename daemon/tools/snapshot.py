"""The command `actcd snapshot save|status|restore`.

Flags and formats are those of etcdctl and etcdutl.  What a command does is in daemon/snapshot_save.py,
storage/bbolt/status.py and daemon/restore.py; nothing here touches a snapshot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from config.faults import BadValue
from config.urls import parse_initial_cluster, parse_urls
from daemon.restore import RestoreOptions, restore
from daemon.snapshot_options import SaveOptions
from daemon.tools.commands import (
    BadArguments,
    Command,
    Word,
    duration_option,
    number_option,
    switch,
    text_option,
    write_out,
)
from daemon.tools.output import Progress, human_size, put_line, table
from storage.bbolt.status import read_status
from wal.filesystem import PosixFileSystem

if TYPE_CHECKING:
    from daemon.tools.commands import Given
    from storage.bbolt.status import Status

DEFAULT_NAME = "default"
DEFAULT_PEER_URLS = "http://localhost:2380"
DEFAULT_ENDPOINT = "127.0.0.1:2379"

_WRITE_OUT = write_out("simple", "json", "fields", "table")
_ENDPOINTS = text_option("endpoints", "The one member to fetch from", DEFAULT_ENDPOINT, "HOST:PORT")
_CACERT = text_option("cacert", "Certificate authority of the member, a PEM file; makes the connection TLS", "", "FILE")
_CERT = text_option("cert", "Our own certificate, a PEM file", "", "FILE")
_KEY = text_option("key", "Its private key, a PEM file", "", "FILE")
_INSECURE = switch("insecure-transport", "No TLS unless the scheme or another option asks for it", default=True)
_SKIP_VERIFY = switch("insecure-skip-tls-verify", "Take whatever certificate the member shows; for tests only")
_USER = text_option("user", "Who asks, with the password behind a colon or in --password", "", "NAME[:PASSWORD]")
_PASSWORD = text_option("password", "The password of --user")
_DIAL_TIMEOUT = duration_option("dial-timeout", "How long to wait for the connection", 2.0)
_COMMAND_TIMEOUT = duration_option("command-timeout", "How long all of it may take; no limit if not given", None)

_DATA_DIR = text_option("data-dir", "Directory to make; NAME.etcd if not given", "", "DIR")
_WAL_DIR = text_option("wal-dir", "Directory of the log to make; DATA-DIR/member/wal if not given", "", "DIR")
_NAME = text_option("name", "Name of this member", DEFAULT_NAME)
_INITIAL_CLUSTER = text_option(
    "initial-cluster", "All members of the new cluster", f"{DEFAULT_NAME}={DEFAULT_PEER_URLS}", "NAME=URL,..."
)
_TOKEN = text_option("initial-cluster-token", "What tells this cluster from others with the same URLs", "etcd-cluster")
_PEER_URLS = text_option("initial-advertise-peer-urls", "Where the others reach this member", DEFAULT_PEER_URLS, "URL")
_SKIP_HASH = switch("skip-hash-check", "Take a file without a hash, such as a copied database")
_BUMP = number_option("bump-revision", "How much to raise the revision, so that clients who saw later ones notice")
_MARK = switch("mark-compacted", "Compact all below the raised revision (needed with --bump-revision)")
_MEMORY_MAP = text_option("initial-memory-map-size", "Taken as etcdutl takes it; has no effect here", "", "BYTES")


def shown(status: Status, how: str) -> str:
    """Return *status* as etcdutl prints it: simple, json, fields or table."""
    if how == "json":
        named = {
            "hash": status.hash,
            "revision": status.revision,
            "totalKey": status.key_count,
            "totalSize": status.size_bytes,
            "version": status.version,
        }
        return json.dumps(named, separators=(",", ":"))
    if how == "fields":
        names = ("Hash", "Revision", "Keys", "Size", "Version")
        values = (*status[:4], json.dumps(status.version))
        return "\n".join(f'"{name}" : {value}' for name, value in zip(names, values, strict=True))
    row = (
        f"{status.hash:x}",
        str(status.revision),
        str(status.key_count),
        human_size(status.size_bytes),
        status.version,
    )
    if how == "table":
        return table(("HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"), [row])
    return ", ".join(row)


def _save(given: Given) -> None:
    from daemon.snapshot_save import save  # noqa: PLC0415 - a client of gRPC, which the other commands do without

    if "," in given[_ENDPOINTS]:
        raise BadArguments("snapshot must be requested to one selected node, not multiple ones: give one endpoint")
    user, _, password = given[_USER].partition(":")
    options = SaveOptions(
        path=Path(given.words[0]),
        endpoint=given[_ENDPOINTS],
        cacert=given[_CACERT],
        cert=given[_CERT],
        key=given[_KEY],
        insecure_transport=given[_INSECURE],
        insecure_skip_tls_verify=given[_SKIP_VERIFY],
        user=user,
        password=given[_PASSWORD] or password,
        dial_timeout_s=given[_DIAL_TIMEOUT],
        command_timeout_s=given[_COMMAND_TIMEOUT],
    )
    with Progress() as progress:
        version = save(options, progress)
    put_line(f"Snapshot saved at {given.words[0]}")
    if version:
        put_line(f"Server version {version}")


def _status(given: Given) -> None:
    with Progress() as progress:
        status = read_status(Path(given.words[0]), progress)
    put_line(shown(status, given[_WRITE_OUT]))


def _restore(given: Given) -> None:
    if bool(given[_BUMP]) != given[_MARK]:
        raise BadArguments("--mark-compacted required if --bump-revision > 0")
    data_dir = Path(given[_DATA_DIR] or f"{given[_NAME]}.etcd")
    try:
        options = RestoreOptions(
            snapshot=Path(given.words[0]),
            name=given[_NAME],
            data_dir=data_dir,
            wal_dir=Path(given[_WAL_DIR]) if given[_WAL_DIR] else data_dir / "member" / "wal",
            initial_cluster=parse_initial_cluster(given[_INITIAL_CLUSTER]),
            initial_cluster_token=given[_TOKEN],
            initial_advertise_peer_urls=parse_urls(given[_PEER_URLS]),
            skip_hash_check=given[_SKIP_HASH],
            revision_bump=given[_BUMP],
        )
    except BadValue as error:
        raise BadArguments(str(error)) from error
    with Progress() as progress:
        restored = restore(options, PosixFileSystem(), progress)
    put_line(
        f"restored {given.words[0]} to {data_dir}: member {restored.member_id:x} of cluster {restored.cluster_id:x}, "
        f"{restored.key_count} keys, {restored.lease_count} leases, revision {restored.revision}"
    )
    for note in restored.notes:
        sys.stderr.write(f"note: {note}\n")


_FILE = Word("FILE", "The snapshot")

SNAPSHOT = Command(
    "snapshot",
    "Fetch a snapshot from a member, check one, or make a data directory from one.\n\nA snapshot is the file that "
    "etcd makes: etcdctl, etcdutl and this command can be mixed.",
    commands=(
        Command(
            "save",
            "Fetch a snapshot from a running member.\n\nWrites go on meanwhile. The file appears under its name only "
            "when it is whole and its hash is right.",
            _save,
            (_FILE,),
            (
                _ENDPOINTS,
                _CACERT,
                _CERT,
                _KEY,
                _INSECURE,
                _SKIP_VERIFY,
                _USER,
                _PASSWORD,
                _DIAL_TIMEOUT,
                _COMMAND_TIMEOUT,
            ),
            examples=(
                "actcd snapshot save backup.db",
                "actcd snapshot save backup.db --endpoints https://10.0.0.1:2379 --cacert ca.pem --user root:secret",
            ),
        ),
        Command(
            "status",
            "Read and check all of a snapshot, and say what it holds.",
            _status,
            (_FILE,),
            (_WRITE_OUT,),
            examples=("actcd snapshot status backup.db -w table",),
        ),
        Command(
            "restore",
            "Make a data directory of a new cluster from a snapshot.\n\nFor a cluster of several, run it once for each "
            "member, with its --name and URLs and the same --initial-cluster. An existing directory is never touched.",
            _restore,
            (_FILE,),
            (
                _DATA_DIR,
                _WAL_DIR,
                _NAME,
                _INITIAL_CLUSTER,
                _TOKEN,
                _PEER_URLS,
                _SKIP_HASH,
                _BUMP,
                _MARK,
                _MEMORY_MAP,
            ),
            examples=(
                "actcd snapshot restore backup.db --data-dir new.etcd",
                "actcd snapshot restore backup.db --data-dir new.etcd --bump-revision 1000000000 --mark-compacted",
            ),
        ),
    ),
)
