"""The one table from what core/errors.py names to gRPC codes.

Codes are those of etcd 3.7 (three of them were UNAVAILABLE up to 3.5: NotCapable, NotSupportedForLearner and the
missing cluster version).  Two are UNKNOWN on the wire although etcd's own table has better ones, because its server
sends them unmapped: MemberNotEnoughStarted and TooManyRequests.
"""

from __future__ import annotations

from core import errors as e
from net.rpc import Code, Status

CODES: dict[type[e.EtcdError], Code] = {
    e.EmptyKey: Code.INVALID_ARGUMENT,
    e.KeyNotFound: Code.INVALID_ARGUMENT,
    e.ValueProvided: Code.INVALID_ARGUMENT,
    e.LeaseProvided: Code.INVALID_ARGUMENT,
    e.TooManyOps: Code.INVALID_ARGUMENT,
    e.DuplicateKey: Code.INVALID_ARGUMENT,
    e.InvalidClientApiVersion: Code.INVALID_ARGUMENT,
    e.InvalidSortOption: Code.INVALID_ARGUMENT,
    e.Compacted: Code.OUT_OF_RANGE,
    e.FutureRevision: Code.OUT_OF_RANGE,
    e.NoSpace: Code.RESOURCE_EXHAUSTED,
    e.LeaseNotFound: Code.NOT_FOUND,
    e.LeaseExists: Code.FAILED_PRECONDITION,
    e.LeaseTtlTooLarge: Code.OUT_OF_RANGE,
    e.NotPrimaryLessor: Code.UNKNOWN,
    e.WatchCanceled: Code.CANCELLED,
    e.MemberExists: Code.FAILED_PRECONDITION,
    e.PeerUrlExists: Code.FAILED_PRECONDITION,
    e.MemberNotEnoughStarted: Code.UNKNOWN,
    e.MemberBadUrls: Code.INVALID_ARGUMENT,
    e.MemberNotFound: Code.NOT_FOUND,
    e.MemberNotLearner: Code.FAILED_PRECONDITION,
    e.LearnerNotReady: Code.FAILED_PRECONDITION,
    e.TooManyLearners: Code.FAILED_PRECONDITION,
    e.ClusterIdMismatch: Code.FAILED_PRECONDITION,
    e.UnknownMethod: Code.UNKNOWN,
    e.WrongDowngradeVersionFormat: Code.INVALID_ARGUMENT,
    e.InvalidDowngradeTargetVersion: Code.INVALID_ARGUMENT,
    e.ClusterVersionUnavailable: Code.FAILED_PRECONDITION,
    e.DowngradeInProcess: Code.FAILED_PRECONDITION,
    e.NoInflightDowngrade: Code.FAILED_PRECONDITION,
    e.RequestTooLarge: Code.INVALID_ARGUMENT,
    e.TooManyRequests: Code.UNKNOWN,
    e.RootUserNotExist: Code.FAILED_PRECONDITION,
    e.RootRoleNotExist: Code.FAILED_PRECONDITION,
    e.UserAlreadyExists: Code.FAILED_PRECONDITION,
    e.UserEmpty: Code.INVALID_ARGUMENT,
    e.UserNotFound: Code.FAILED_PRECONDITION,
    e.RoleAlreadyExists: Code.FAILED_PRECONDITION,
    e.RoleNotFound: Code.FAILED_PRECONDITION,
    e.RoleEmpty: Code.INVALID_ARGUMENT,
    e.AuthFailed: Code.INVALID_ARGUMENT,
    e.NoPasswordUser: Code.UNKNOWN,
    e.PasswordTooLong: Code.UNKNOWN,
    e.PasswordTooShort: Code.INVALID_ARGUMENT,
    e.PermissionNotGiven: Code.INVALID_ARGUMENT,
    e.PermissionDenied: Code.PERMISSION_DENIED,
    e.RoleNotGranted: Code.FAILED_PRECONDITION,
    e.PermissionNotGranted: Code.FAILED_PRECONDITION,
    e.AuthNotEnabled: Code.FAILED_PRECONDITION,
    e.InvalidAuthToken: Code.UNAUTHENTICATED,
    e.InvalidAuthManagement: Code.INVALID_ARGUMENT,
    e.AuthOldRevision: Code.INVALID_ARGUMENT,
    e.VerifyOnly: Code.UNKNOWN,
    e.NoLeader: Code.UNAVAILABLE,
    e.NotLeader: Code.FAILED_PRECONDITION,
    e.LeaderChanged: Code.UNAVAILABLE,
    e.NotCapable: Code.FAILED_PRECONDITION,
    e.Stopped: Code.UNAVAILABLE,
    e.RequestTimeout: Code.UNAVAILABLE,
    e.TimeoutDueToLeaderFail: Code.UNAVAILABLE,
    e.TimeoutDueToConnectionLost: Code.UNAVAILABLE,
    e.TimeoutWaitAppliedIndex: Code.UNAVAILABLE,
    e.UnhealthyCluster: Code.UNAVAILABLE,
    e.CorruptCluster: Code.DATA_LOSS,
    e.NotSupportedForLearner: Code.FAILED_PRECONDITION,
    e.TimeoutLeaderTransfer: Code.UNKNOWN,
    e.BadLeaderTransferee: Code.FAILED_PRECONDITION,
    e.ProposalDropped: Code.UNKNOWN,
    e.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    e.Canceled: Code.CANCELLED,
}


def status_of(error: e.EtcdError) -> Status:
    """Return what goes to the client for *error*."""
    return Status(CODES[type(error)], error.text)


def go_text(status: Status) -> str:
    """Return *status* as Go prints it, which is how it stands in texts inside of messages."""
    name = "".join(word.capitalize() for word in status.code.name.split("_"))
    return f"rpc error: code = {name} desc = {status.message}"


def undecodable_message(error: Exception) -> Status:
    """Return the status for a stream's message that is none of its type, in grpc-go's other words."""
    return Status(Code.INTERNAL, f"grpc: failed to unmarshal the received message {error}")


def undecodable(error: Exception) -> Status:
    """Return the status for a request whose bytes are no message of its type, in grpc-go's words."""
    return Status(Code.INTERNAL, f"grpc: error unmarshalling request: {error}")
