"""The HTTP pages of a peer listener, beside raft's own: what members and tools ask a member at its peer URL.

Forms are etcd's: ids are JSON numbers, empty optional fields are left out.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from core.errors import ClusterIdMismatch, EtcdError
from core.membership.member import go_json
from core.types import LeaseId, MemberId
from proto.lease_pb2 import LeaseInternalRequest, LeaseInternalResponse
from proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse
from services.member_pages import HASH_PATH, PROMOTE_PATH, RENEW_PATH, TIMES_PATH, promote_refusal
from services.status_pages import JSON, NO_SNIFF, PLAIN, version_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.mvcc.hashing import HashKv
    from net.rpc import HttpRequest, HttpResponder
    from services.node import LeaseTimes

    Page = Callable[[HttpRequest, HttpResponder], None]

ID_DIGITS_MAX = 20
"""Of a 64-bit number in decimal; int() refuses thousands of them with an error of its own."""

PROTOBUF = ("content-type", "application/protobuf")


class PeerNode(Protocol):
    """The member, seen from its pages.  Each *then* is called later, on the listener's loop."""

    @property
    def cluster_id(self) -> int:
        """The cluster's id."""

    @property
    def cluster_version(self) -> str:
        """What the members have agreed on; empty if nothing yet."""

    @property
    def is_downgrading(self) -> bool:
        """Whether the cluster goes back a release."""

    def members_json(self, then: Callable[[bytes], None]) -> None:
        """Look up the members as JSON."""

    def promote(self, member: MemberId, then: Callable[[EtcdError | None], None]) -> None:
        """Make *member* a voter, if this member leads."""

    def renew(self, lease: LeaseId, then: Callable[[int | EtcdError], None]) -> None:
        """Renew *lease*, if this member is primary; *then* gets its time to live, 0 if there is no such lease."""

    def lease_times(self, lease: LeaseId, then: Callable[[LeaseTimes | EtcdError], None]) -> None:
        """Look up how long *lease* has, if this member is primary."""

    def lease_keys(self, lease: LeaseId, then: Callable[[list[bytes]], None]) -> None:
        """Look up the keys of *lease*."""

    def hash_kv(self, revision: int, then: Callable[[tuple[HashKv, int] | EtcdError], None]) -> None:
        """Hash the keys at *revision* (0: now); *then* gets the hash and the store's revision."""


class PeerPages:
    """Answers HTTP requests on one peer listener."""

    def __init__(self, node: PeerNode) -> None:
        self._node = node
        self._cluster_id = ("x-etcd-cluster-id", f"{node.cluster_id:x}")
        self._pages: dict[str, tuple[str, Page]] = {
            "/version": ("GET", self._version),
            "/members": ("GET", self._members),
            HASH_PATH: ("GET", self._hash_kv),
            "/downgrade/enabled": ("GET", self._downgrade_enabled),
            RENEW_PATH: ("POST", self._renew),
            TIMES_PATH: ("POST", self._lease_times),
        }

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request."""
        promote: tuple[str, Page] | None = ("POST", self._promote) if request.path.startswith(PROMOTE_PATH) else None
        found = promote or self._pages.get(request.path)
        if found is None:
            responder.reply(404, [PLAIN, NO_SNIFF], b"404 page not found\n")
            return
        method, page = found
        if request.method == method:
            page(request, responder)
        else:
            responder.reply(405, [("allow", method), PLAIN, NO_SNIFF], b"Method Not Allowed\n")

    def _version(self, _request: HttpRequest, responder: HttpResponder) -> None:
        responder.reply(200, [JSON], version_body(self._node.cluster_version))

    def _members(self, _request: HttpRequest, responder: HttpResponder) -> None:
        self._node.members_json(lambda body: responder.reply(200, [JSON, self._cluster_id], body))

    def _downgrade_enabled(self, _request: HttpRequest, responder: HttpResponder) -> None:
        enabled = b"true" if self._node.is_downgrading else b"false"
        responder.reply(200, [PLAIN, self._cluster_id], enabled)

    def _promote(self, request: HttpRequest, responder: HttpResponder) -> None:
        text = request.path.removeprefix(PROMOTE_PATH)
        if not (text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX) or int(text) >> 64:
            self._refuse(responder, HTTPStatus.NOT_FOUND, f"member {text} not found in cluster")
            return

        def with_outcome(error: EtcdError | None) -> None:
            if error is None:
                self._members(request, responder)
            else:
                self._refuse(responder, *promote_refusal(error))

        self._node.promote(MemberId(int(text)), with_outcome)

    def _renew(self, request: HttpRequest, responder: HttpResponder) -> None:
        try:
            lease = LeaseId(LeaseKeepAliveRequest.FromString(request.body).ID)
        except DecodeError:
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "error unmarshalling request")
            return

        def with_ttl(ttl_s: int | EtcdError) -> None:
            if isinstance(ttl_s, EtcdError):
                self._refuse(responder, HTTPStatus.BAD_REQUEST, ttl_s.text)
            elif not ttl_s:
                self._refuse(responder, HTTPStatus.NOT_FOUND, "lease not found")
            else:
                answer = LeaseKeepAliveResponse(ID=lease, TTL=ttl_s)
                responder.reply(200, [PROTOBUF], answer.SerializeToString())

        self._node.renew(lease, with_ttl)

    def _lease_times(self, request: HttpRequest, responder: HttpResponder) -> None:
        try:
            asked = LeaseInternalRequest.FromString(request.body).LeaseTimeToLiveRequest
        except DecodeError:
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "error unmarshalling request")
            return
        lease, want_keys = LeaseId(asked.ID), asked.keys

        def reply(times: LeaseTimes, keys: list[bytes]) -> None:
            found = LeaseTimeToLiveResponse(ID=lease, TTL=times.remaining_s, grantedTTL=times.granted_s, keys=keys)
            found.header.SetInParent()  # etcd fills it in for its client, and stops where there is none
            answer = LeaseInternalResponse(LeaseTimeToLiveResponse=found)
            responder.reply(200, [PROTOBUF], answer.SerializeToString())

        def with_times(times: LeaseTimes | EtcdError) -> None:
            if isinstance(times, EtcdError):
                self._refuse(responder, HTTPStatus.BAD_REQUEST, times.text)
            elif times.remaining_s is None:
                self._refuse(responder, HTTPStatus.NOT_FOUND, "lease not found")
            elif want_keys:
                self._node.lease_keys(lease, lambda keys: reply(times, keys))
            else:
                reply(times, [])

        self._node.lease_times(lease, with_times)

    def _hash_kv(self, request: HttpRequest, responder: HttpResponder) -> None:
        if request.headers.get("x-etcd-cluster-id", self._cluster_id[1]) != self._cluster_id[1]:
            self._refuse(responder, HTTPStatus.PRECONDITION_FAILED, ClusterIdMismatch.text.removeprefix("etcdserver: "))
            return
        try:
            revision = json.loads(request.body).get("revision", 0)
        except (ValueError, AttributeError, RecursionError):
            revision = None
        if not isinstance(revision, int) or not -(1 << 63) <= revision < 1 << 63:
            self._refuse(responder, HTTPStatus.BAD_REQUEST, "error unmarshalling request")
            return

        def with_hash(outcome: tuple[HashKv, int] | EtcdError) -> None:
            if isinstance(outcome, EtcdError):
                self._refuse(responder, HTTPStatus.BAD_REQUEST, outcome.text.removeprefix("etcdserver: "))
                return
            found, current = outcome
            fields = {
                "header": {"revision": current},
                "hash": found.hash,
                "compact_revision": found.compact_revision,
                "hash_revision": found.revision,
            }
            body = go_json({name: value for name, value in fields.items() if value})
            responder.reply(200, [JSON, self._cluster_id], body)

        self._node.hash_kv(revision, with_hash)

    def _refuse(self, responder: HttpResponder, status: HTTPStatus, text: str) -> None:
        responder.reply(status, [PLAIN, NO_SNIFF, self._cluster_id], text.encode() + b"\n")
