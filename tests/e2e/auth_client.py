"""A server with auth on, seen by nobody, by a user with a few ranges, and by root."""

import re
from contextlib import suppress
from typing import Any, Final

import grpc

from proto import auth_pb2
from proto import rpc_pb2 as pb
from tests.e2e.auth_table import CREATED, ENDED, LEASE_CLOSED, LEASE_EMPTY, LEASE_NEW, LEASE_OPEN, OK, Row
from tests.e2e.client import CALL_TIMEOUT_S, Stubs
from tests.e2e.harness import SHORT_TIMEOUTS, Server

CHEAP: Final = {**SHORT_TIMEOUTS, "bcrypt-cost": 4}
"""Settings for tests: hashes that cost little."""

PASSWORD: Final = "secret"
CHANGE_TIMEOUT_S: Final = 5.0
"""For changes of the membership, which raft may drop without a word."""

REFUSED_IDS: Final = (-1, 0)
"""What a refused watch is called: nothing, and by 3.5.1 what the client asked for."""


class AuthClient:
    """One server with auth on, and the tokens of a user and of root."""

    def __init__(self, server: Server, stubs: Stubs) -> None:
        self.server = server
        self.stubs = stubs
        self.tokens: dict[str, str] = {}
        self.sent: list[tuple[str, str]] | None = None
        """What every call brings along instead of a token, where a test says so."""

    def set_up(self) -> None:
        """Make users, roles and some keys, switch auth on and log in."""
        auth = self.stubs.auth
        for name in ("root", "user", "ghost"):
            options = auth_pb2.UserAddOptions(no_password=name == "ghost")
            password = "" if name == "ghost" else PASSWORD
            auth.UserAdd(pb.AuthUserAddRequest(name=name, password=password, options=options))
        auth.RoleAdd(pb.AuthRoleAddRequest(name="role"))
        auth.RoleAdd(pb.AuthRoleAddRequest(name="spare"))
        kinds = auth_pb2.Permission
        for kind, key, range_end in (
            (kinds.READWRITE, b"k/", b"k0"),
            (kinds.READ, b"r/", b"r0"),
            (kinds.WRITE, b"w/", b"w0"),
            (kinds.READ, b"x", b"\0"),
        ):
            permission = kinds(permType=kind, key=key, range_end=range_end)
            auth.RoleGrantPermission(pb.AuthRoleGrantPermissionRequest(name="role", perm=permission))
        auth.UserGrantRole(pb.AuthUserGrantRoleRequest(user="user", role="role"))
        auth.UserGrantRole(pb.AuthUserGrantRoleRequest(user="root", role="root"))
        for key in (b"k/1", b"k/2", b"r/1", b"w/1", b"other"):
            self.stubs.kv.Put(pb.PutRequest(key=key, value=b"v"))
        auth.AuthEnable(pb.AuthEnableRequest())
        for name in ("root", "user"):
            self.log_in(name)

    def log_in(self, name: str, password: str = PASSWORD) -> str:
        """Get a token for *name*, and use it from now on."""
        request = pb.AuthenticateRequest(name=name, password=password)
        self.tokens[name] = self.stubs.auth.Authenticate(request, timeout=CALL_TIMEOUT_S).token
        return self.tokens[name]

    def metadata(self, who: str) -> list[tuple[str, str]]:
        """Return what makes a call that of *who*."""
        if self.sent is not None:
            return self.sent
        return [("token", self.tokens[who])] if who in self.tokens else []

    def call(self, who: str, service: str, method: str, request: Any) -> Any:
        """Make one unary call as *who* and return its answer."""
        unary = getattr(getattr(self.stubs, service), method)
        return unary(request, metadata=self.metadata(who), timeout=CALL_TIMEOUT_S)

    def end(self, who: str, service: str, method: str, request: Any) -> str:
        """Make one call as *who*, and return how it ended: code and text, or what a watch was answered."""
        call, metadata = getattr(getattr(self.stubs, service), method), self.metadata(who)
        try:
            if method == "Watch":
                return _first_answer(call, request, metadata)
            if method == "Observe":
                observed = call(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
                first = next(observed, None)
                observed.cancel()
                return OK if first is not None else ENDED
            if method == "LeaseKeepAlive":
                list(call(iter([request]), metadata=metadata, timeout=CALL_TIMEOUT_S))
            elif method in {"Snapshot", "RangeStream"}:
                list(call(request, metadata=metadata, timeout=CALL_TIMEOUT_S))
            else:
                call(request, metadata=metadata, timeout=CHANGE_TIMEOUT_S if service == "cluster" else CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return OK

    def end_of(self, row: Row, who: str) -> str:
        """Make the call of *row* as *who*, on leases as they should be, and say how it ended."""
        self.lay_out_leases_for(row)
        end = self.end(who, row.service, row.method, row.request)
        if row.service == "cluster" and end.startswith("DEADLINE_EXCEEDED"):
            # A change that comes while the one before is not applied yet is dropped by raft, and nobody is told.
            end = self.end(who, row.service, row.method, row.request)
        return end

    def lay_out_leases_for(self, row: Row) -> None:
        """Make leases as they should be, if *row* has to do with them."""
        if self.needs_leases(row):
            self._lay_out_leases()

    @staticmethod
    def needs_leases(row: Row) -> bool:
        """Whether the call of *row* may have to do with leases."""
        return row.service in {"lease", "lock", "election"} or row.method in {"Put", "Txn"}

    def _lay_out_leases(self) -> None:
        for lease in (LEASE_OPEN, LEASE_CLOSED, LEASE_EMPTY, LEASE_NEW):
            with suppress(grpc.RpcError):  # not there
                self.call("root", "lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease))
        for lease, key in ((LEASE_OPEN, b"k/held"), (LEASE_CLOSED, b"o/held"), (LEASE_EMPTY, b"")):
            self.call("root", "lease", "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=600))
            if key:
                self.call("root", "kv", "Put", pb.PutRequest(key=key, lease=lease))


def _first_answer(call: Any, create: pb.WatchCreateRequest, metadata: list[tuple[str, str]]) -> str:
    answers = call(iter([pb.WatchRequest(create_request=create)]), metadata=metadata, timeout=CALL_TIMEOUT_S)
    try:
        answer = next(answers)
    finally:
        answers.cancel()
    assert answer.created, answer
    if not answer.canceled:
        return CREATED
    assert answer.watch_id in REFUSED_IDS, answer
    return f"canceled: {as_code_and_text(answer.cancel_reason)}"


def as_code_and_text(reason: str) -> str:
    """Return Go's text of a status in the form that other ends have here."""
    found = re.fullmatch(r"rpc error: code = (\w+) desc = (.*)", reason)
    assert found is not None, reason
    return f"{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', found[1]).upper()}: {found[2]}"
