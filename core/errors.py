"""Every condition a client can be told about, one class each, in etcd's exact words.

Go clients tell errors apart by their text, so a text here is part of the wire format.  Which gRPC code goes with a
class is known to services/errors.py alone.
"""

from __future__ import annotations

from typing import ClassVar


class EtcdError(Exception):
    """A refusal that a client may see.  Raise the subclass that names the condition."""

    text: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(self.text)


class EmptyKey(EtcdError):
    text = "etcdserver: key is not provided"


class KeyNotFound(EtcdError):
    text = "etcdserver: key not found"


class ValueProvided(EtcdError):
    text = "etcdserver: value is provided"


class LeaseProvided(EtcdError):
    text = "etcdserver: lease is provided"


class TooManyOps(EtcdError):
    text = "etcdserver: too many operations in txn request"


class DuplicateKey(EtcdError):
    text = "etcdserver: duplicate key given in txn request"


class InvalidClientApiVersion(EtcdError):
    text = "etcdserver: invalid client api version"


class InvalidSortOption(EtcdError):
    text = "etcdserver: invalid sort option"


class Compacted(EtcdError):
    text = "etcdserver: mvcc: required revision has been compacted"


class FutureRevision(EtcdError):
    text = "etcdserver: mvcc: required revision is a future revision"


class NoSpace(EtcdError):
    text = "etcdserver: mvcc: database space exceeded"


class LeaseNotFound(EtcdError):
    text = "etcdserver: requested lease not found"


class LeaseExists(EtcdError):
    text = "etcdserver: lease already exists"


class LeaseTtlTooLarge(EtcdError):
    text = "etcdserver: too large lease TTL"


class NotPrimaryLessor(EtcdError):
    text = "not a primary lessor"


class WatchCanceled(EtcdError):
    text = "etcdserver: watch canceled"


class MemberExists(EtcdError):
    text = "etcdserver: member ID already exist"


class PeerUrlExists(EtcdError):
    text = "etcdserver: Peer URLs already exists"


class MemberNotEnoughStarted(EtcdError):
    text = "etcdserver: re-configuration failed due to not enough started members"


class MemberBadUrls(EtcdError):
    text = "etcdserver: given member URLs are invalid"


class MemberNotFound(EtcdError):
    text = "etcdserver: member not found"


class MemberNotLearner(EtcdError):
    text = "etcdserver: can only promote a learner member"


class LearnerNotReady(EtcdError):
    text = "etcdserver: can only promote a learner member which is in sync with leader"


class TooManyLearners(EtcdError):
    text = "etcdserver: too many learner members in cluster"


class ClusterIdMismatch(EtcdError):
    text = "etcdserver: cluster ID mismatch"


class RequestTooLarge(EtcdError):
    text = "etcdserver: request is too large"


class TooManyRequests(EtcdError):
    text = "etcdserver: too many requests"


class RootUserNotExist(EtcdError):
    text = "etcdserver: root user does not exist"


class RootRoleNotExist(EtcdError):
    text = "etcdserver: root user does not have root role"


class UserAlreadyExists(EtcdError):
    text = "etcdserver: user name already exists"


class UserEmpty(EtcdError):
    text = "etcdserver: user name is empty"


class UserNotFound(EtcdError):
    text = "etcdserver: user name not found"


class RoleAlreadyExists(EtcdError):
    text = "etcdserver: role name already exists"


class RoleNotFound(EtcdError):
    text = "etcdserver: role name not found"


class RoleEmpty(EtcdError):
    text = "etcdserver: role name is empty"


class AuthFailed(EtcdError):
    text = "etcdserver: authentication failed, invalid user ID or password"


class NoPasswordUser(EtcdError):
    text = "auth: authentication failed, password was given for no password user"


class PasswordTooLong(EtcdError):
    text = "bcrypt: password length exceeds 72 bytes"


class PasswordTooShort(EtcdError):
    text = "etcdserver: password is too short"


class PermissionNotGiven(EtcdError):
    text = "etcdserver: permission not given"


class PermissionDenied(EtcdError):
    text = "etcdserver: permission denied"


class RoleNotGranted(EtcdError):
    text = "etcdserver: role is not granted to the user"


class PermissionNotGranted(EtcdError):
    text = "etcdserver: permission is not granted to the role"


class AuthNotEnabled(EtcdError):
    text = "etcdserver: authentication is not enabled"


class InvalidAuthToken(EtcdError):
    text = "etcdserver: invalid auth token"


class InvalidAuthManagement(EtcdError):
    text = "etcdserver: invalid auth management"


class AuthOldRevision(EtcdError):
    text = "etcdserver: revision of auth store is old"


class VerifyOnly(EtcdError):
    text = "auth: token signing attempted with verify-only key"


class NoLeader(EtcdError):
    text = "etcdserver: no leader"


class NotLeader(EtcdError):
    text = "etcdserver: not leader"


class LeaderChanged(EtcdError):
    text = "etcdserver: leader changed"


class NotCapable(EtcdError):
    text = "etcdserver: not capable"


class Stopped(EtcdError):
    text = "etcdserver: server stopped"


class RequestTimeout(EtcdError):
    text = "etcdserver: request timed out"


class TimeoutDueToLeaderFail(EtcdError):
    text = "etcdserver: request timed out, possibly due to previous leader failure"


class TimeoutDueToConnectionLost(EtcdError):
    text = "etcdserver: request timed out, possibly due to connection lost"


class TimeoutWaitAppliedIndex(EtcdError):
    text = "etcdserver: request timed out, waiting for the applied index took too long"


class UnhealthyCluster(EtcdError):
    text = "etcdserver: unhealthy cluster"


class CorruptCluster(EtcdError):
    text = "etcdserver: corrupt cluster"


class NotSupportedForLearner(EtcdError):
    text = "etcdserver: rpc not supported for learner"


class TimeoutLeaderTransfer(EtcdError):
    text = "etcdserver: request timed out, leader transfer took too long"


class WrongDowngradeVersionFormat(EtcdError):
    text = "etcdserver: wrong downgrade target version format"


class InvalidDowngradeTargetVersion(EtcdError):
    text = "etcdserver: invalid downgrade target version"


class ClusterVersionUnavailable(EtcdError):
    text = "etcdserver: cluster version not found during downgrade"


class DowngradeInProcess(EtcdError):
    text = "etcdserver: cluster has a downgrade job in progress"


class NoInflightDowngrade(EtcdError):
    text = "etcdserver: no inflight downgrade job"


class UnknownMethod(EtcdError):
    text = "etcdserver: unknown method"


class BadLeaderTransferee(EtcdError):
    text = "etcdserver: bad leader transferee"


class ProposalDropped(EtcdError):
    text = "raft proposal dropped"


class DeadlineExceeded(EtcdError):
    text = "context deadline exceeded"


class Canceled(EtcdError):
    text = "context canceled"
