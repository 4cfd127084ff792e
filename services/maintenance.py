"""The Maintenance service of one member: status, hashes, alarms, defragmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c

from core.errors import EtcdError, NoInflightDowngrade, NoLeader, UnknownMethod
from core.membership.downgrade import checked_target
from core.mvcc.hashing import hash_all, hash_kv
from core.version import SERVER_VERSION
from proto.membership_pb2 import DowngradeInfoSetRequest
from proto.rpc_pb2 import (
    AlarmMember,
    AlarmRequest,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeInfo,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    StatusRequest,
    StatusResponse,
)
from services.decode import decode, decode_entry
from services.errors import status_of
from services.health import Health
from services.identity import admit, is_known, is_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mvcc.hashing import HashKv
    from core.mvcc.view import View
    from core.types import MemberId
    from net.rpc import Call
    from services.node import Node

ALARM_TAG = b"\x52"
"""Field 10 of InternalRaftRequest."""


DOWNGRADE_TAG = b"\xb2\x51"
"""Field 1302 of it."""


class MaintenanceService:
    """Handles etcdserverpb.Maintenance for one listener."""

    def __init__(self, node: Node, health: Health | None = None) -> None:
        """*health* is told of defragmentations."""
        self._node = node
        self._health = health or Health()

    def status(self, call: Call, payload: bytes) -> None:
        """Tell how this member is."""
        if decode(call, StatusRequest, payload) is None:
            return
        node = self._node

        def with_alarms(alarms: Sequence[tuple[MemberId, int]]) -> None:
            node.sizes(lambda sizes: call.reply(self._status(alarms, *sizes)))

        node.alarms(with_alarms)

    def _status(self, alarms: Sequence[tuple[MemberId, int]], allocated: int, in_use: int) -> bytes:
        node = self._node
        answer = StatusResponse(
            version=SERVER_VERSION,
            dbSize=allocated,
            dbSizeInUse=in_use,
            leader=node.leader,
            raftIndex=node.commit_index,
            raftTerm=node.term,
            raftAppliedIndex=node.view.applied_index,
            isLearner=node.is_learner,
        )
        if node.downgrade.enabled:
            answer.downgradeInfo.CopyFrom(DowngradeInfo(enabled=True, targetVersion=node.downgrade.target))
        if not node.leader:
            answer.errors.append(NoLeader.text)
        answer.errors.extend(alarm_text(member, alarm) for member, alarm in alarms)
        return node.header() + answer.SerializeToString()

    def alarm(self, call: Call, payload: bytes) -> None:
        """List alarms for anybody, raise or clear them for an administrator; all three through raft."""
        request = decode_entry(call, AlarmRequest, ALARM_TAG, payload)
        if request is not None:
            check = is_known if request.action == AlarmRequest.GET else is_root
            admit(self._node, call, check, lambda: self._node.propose(call, ALARM_TAG, payload))

    def defragment(self, call: Call, payload: bytes) -> None:
        """Give space back; nothing waits for it but the caller."""
        if decode(call, DefragmentRequest, payload) is None:
            return
        ended = self._health.defragmentation()

        def done(_outcome: object) -> None:
            ended()
            call.reply(DefragmentResponse().SerializeToString())

        self._node.defragment(done)

    def downgrade(self, call: Call, payload: bytes) -> None:
        """Prepare the cluster for members of the release before, or call that off."""
        request = decode(call, DowngradeRequest, payload)
        if request is None:
            return
        node = self._node

        def answer() -> None:
            version = node.cluster_version.rpartition(".")[0]
            call.reply(node.header() + DowngradeResponse(version=version).SerializeToString())

        def with_view(_view: View) -> None:
            if request.action == DowngradeRequest.CANCEL:
                if node.downgrade.enabled:
                    node.propose(call, DOWNGRADE_TAG, DowngradeInfoSetRequest().SerializeToString())
                else:
                    call.fail(status_of(NoInflightDowngrade()))
                return
            try:
                target = checked_target(request.version, node.cluster_version, node.downgrade)
            except EtcdError as error:
                call.fail(status_of(error))
                return
            if request.action == DowngradeRequest.VALIDATE:
                answer()
            else:
                wanted = DowngradeInfoSetRequest(enabled=True, ver=str(target))
                node.propose(call, DOWNGRADE_TAG, wanted.SerializeToString())

        if request.action in DowngradeRequest.DowngradeAction.values():
            node.read(call, with_view)
        else:
            call.fail(status_of(UnknownMethod()))

    def hash(self, call: Call, payload: bytes) -> None:
        """Hash the whole store."""
        if decode(call, HashRequest, payload) is None:
            return
        view, header = self._node.view, self._node.header()
        self._node.work(
            call,
            lambda: header + HashResponse(hash=hash_all(view, google_crc32c.extend)).SerializeToString(),
            slow=True,
        )

    def hash_kv(self, call: Call, payload: bytes) -> None:
        """Hash the keys at a revision, so that members can be compared."""
        request = decode(call, HashKVRequest, payload)
        if request is None:
            return
        node = self._node

        def with_view(found: tuple[View, HashKv | None]) -> None:
            view, made = found
            header = node.headers.encode(view.revision, node.term)

            def job() -> bytes:
                result = made or hash_kv(view, request.revision, google_crc32c.extend)
                answer = HashKVResponse(
                    hash=result.hash, compact_revision=result.compact_revision, hash_revision=result.revision
                )
                return header + answer.SerializeToString()

            node.work(call, job, slow=True)

        node.hash_question(request.revision, with_view)


def alarm_text(member: MemberId, alarm: int) -> str:
    """Return an alarm as Status shows it: the text form of its protobuf message, in Go's spacing."""
    return str(AlarmMember(memberID=member, alarm=alarm)).strip().replace(": ", ":").replace("\n", " ")  # type: ignore[arg-type]
