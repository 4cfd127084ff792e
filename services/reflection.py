"""gRPC server reflection: which services a listener has, and how their messages look, for tools such as grpcurl.

etcd has none, so it is a setting of our own and off by default: it shows to anybody what is served, though nothing
that is stored.  Both names of the service are served, whose messages are the same.  Spec: grpc/reflection/v1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from net.rpc import Code, Routes
from services.errors import undecodable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import FileDescriptor

    from net.rpc import Status, Stream

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

UNSENT_BYTES_MAX: Final = 1 << 20
"""A client that leaves more than this unread is not read either."""


def reflected(routes: Routes) -> Routes:
    """Return *routes* and what tells about them."""
    paths = [*routes.unary, *routes.streams, *(f"/{service}/ServerReflectionInfo" for service in SERVICES)]
    names = sorted({path[1:].partition("/")[0] for path in paths})
    streams = {
        f"/{service}/ServerReflectionInfo": lambda stream: ReflectionStream(stream, names) for service in SERVICES
    }
    return Routes(routes.unary, {**routes.streams, **streams}, routes.tallies)


class ReflectionStream:
    """One ServerReflectionInfo call: each request is answered by itself."""

    def __init__(self, stream: Stream, names: Sequence[str]) -> None:
        self._stream = stream
        self._names = names

    def on_message(self, message: bytes) -> None:
        """Answer one request."""
        try:
            request = ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable(error))
            return
        answer = answered(request, self._names)
        answer.valid_host = request.host
        answer.original_request.CopyFrom(request)
        self._stream.send(answer.SerializeToString())
        if self._stream.unsent_bytes > UNSENT_BYTES_MAX:
            self._stream.pause_reading()

    def on_half_close(self) -> None:
        """End: all is answered."""
        self._stream.finish()

    def on_drained(self) -> None:
        """Read on."""
        self._stream.resume_reading()

    def on_closed(self, status: Status) -> None:
        """Nothing is kept for a stream."""


def answered(request: ServerReflectionRequest, names: Sequence[str]) -> ServerReflectionResponse:
    """Return the answer to *request* where the services *names* are served."""
    pool = descriptor_pool.Default()
    asked = request.WhichOneof("message_request")
    try:
        if asked == "list_services":
            services = [ServiceResponse(name=name) for name in names]
            return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))
        if asked == "file_by_filename":
            return _files(pool.FindFileByName(request.file_by_filename))
        if asked == "file_containing_symbol":
            # The newer name has no description of its own here; the older one's messages are the same.
            symbol = request.file_containing_symbol
            return _files(pool.FindFileContainingSymbol(SERVICES[1] if symbol == SERVICES[0] else symbol))
    except KeyError:
        pass
    error = ErrorResponse(error_code=int(Code.NOT_FOUND), error_message="not found")
    return ServerReflectionResponse(error_response=error)


def _files(file: FileDescriptor) -> ServerReflectionResponse:
    """Return *file* and all that it builds on."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in found:
            found[each.name] = each.serialized_pb
            waiting += each.dependencies
    files = FileDescriptorResponse(file_descriptor_proto=list(found.values()))
    return ServerReflectionResponse(file_descriptor_response=files)
