"""Fetching a snapshot from a running member into a file: `actcd snapshot save`.

A client like any other; knows the Snapshot call and what a whole snapshot looks like.  The file appears under its name
only when it is whole and its SHA-256 is right.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc

from daemon.snapshot_options import SaveFailed
from discovery.credentials import Secure, credentials_of
from proto.rpc_pb2 import AuthenticateRequest, SnapshotRequest
from proto.rpc_pb2_grpc import AuthStub, MaintenanceStub
from storage.bbolt.pages import TRAILER_SIZE_BYTES
from storage.bbolt.status import check_trailer

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.snapshot_options import SaveOptions
    from daemon.tools.output import Progress

_SCHEMES = ("http", "https", "unix", "unixs")
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1),)


def save(options: SaveOptions, progress: Progress) -> str:
    """Fetch the snapshot and return the storage version that the member tells, empty before etcd 3.6.

    Raises SaveFailed, BadTrailer, OSError, and leaves no file then.
    """
    part = options.path.with_name(options.path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, _channel(options) as channel:
            version = _receive(options, channel, file.write, progress)
            file.flush()
            os.fsync(file.fileno())
        check_trailer(part)
        part.rename(options.path)
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
        raise SaveFailed(f"{options.endpoint} sent no snapshot: {text} ({code.name})") from error
    except grpc.FutureTimeoutError as error:
        raise SaveFailed(f"no server answers at {options.endpoint}") from error
    finally:
        part.unlink(missing_ok=True)
    return version


def _receive(options: SaveOptions, channel: grpc.Channel, write: Callable[[bytes], int], progress: Progress) -> str:
    grpc.channel_ready_future(channel).result(timeout=options.dial_timeout_s)
    metadata: list[tuple[str, str]] = []
    if options.user:
        auth = AuthStub(channel)  # type: ignore[no-untyped-call]  # generated
        request = AuthenticateRequest(name=options.user, password=options.password)
        metadata.append(("token", auth.Authenticate(request, timeout=options.dial_timeout_s).token))
    maintenance = MaintenanceStub(channel)  # type: ignore[no-untyped-call]  # generated
    version = ""
    received_bytes = 0
    for chunk in maintenance.Snapshot(SnapshotRequest(), timeout=options.command_timeout_s, metadata=metadata):
        write(chunk.blob)
        version = chunk.version or version
        received_bytes += len(chunk.blob)
        progress("bytes", received_bytes, received_bytes + chunk.remaining_bytes)
    if received_bytes <= TRAILER_SIZE_BYTES:
        raise SaveFailed(f"{options.endpoint} sent an empty snapshot")
    return version


def _channel(options: SaveOptions) -> grpc.Channel:
    scheme, separator, address = options.endpoint.rpartition("://")
    if separator and scheme not in _SCHEMES:
        raise SaveFailed(f"the scheme of the endpoint {options.endpoint} must be one of {', '.join(_SCHEMES)}, or none")
    secure = Secure(
        options.cert,
        options.key,
        options.cacert,
        insecure_transport=options.insecure_transport,
        insecure_skip_tls_verify=options.insecure_skip_tls_verify,
    )
    target = f"unix:{address}" if scheme in {"unix", "unixs"} else address
    credentials = credentials_of(options.endpoint, secure, options.dial_timeout_s)
    if credentials is None:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    expected = credentials.expected_name
    named = (("grpc.ssl_target_name_override", expected),) if expected else ()
    return grpc.secure_channel(target, credentials.channel, options=(*_CHANNEL_OPTIONS, *named))
