"""What each alarm forbids to whom: every row of auth_table.py under NOSPACE and under CORRUPT, with auth on.

An alarm changes what is refused, never who is: whoever may not is told so as without it, and who may is told of the
alarm.  In etcd up to 3.7 an alarm switches auth off for what goes through the log (its issue 22386), so 3.5.1 is
compared for root, and for all three in what it checks before the log.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from proto import rpc_pb2 as pb
from tests.e2e.auth_client import CHEAP, AuthClient
from tests.e2e.auth_table import DENIED, EMPTY, ENDED, OK, TABLE, Row
from tests.e2e.client import connect
from tests.e2e.harness import Server, actcd, real_etcd, running
from tests.e2e.test_alarms import CORRUPT, FULL

pytestmark = pytest.mark.e2e

CALLERS: Final = ("nobody", "user", "root")
BEFORE_THE_LOG: Final = {"ranges", "watches"}
"""Groups whose callers 3.5.1 checks where no alarm is looked at."""
GROWS: Final = {"Put", "LeaseGrant", "Lock", "Campaign", "Proclaim"}
WRITES: Final = {*GROWS, "DeleteRange", "Compact", "LeaseRevoke", "Unlock", "Resign"}
UNREPEATABLE: Final = {"learner", "compaction", "right password", "alarm raised", "alarm cleared"}
"""Rows of which one run changes the next, or that raise alarms themselves: what alarms do to them is in test_alarms.py,
which has auth off; who may is in test_auth.py."""
REFUSALS: Final = ("user name is empty", "permission denied", ENDED)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AuthClient, AuthClient]]:
    """An actcd and an etcd 3.5.1 with auth on."""
    ours = Server(actcd(), tmp_path_factory.mktemp("actcd"), CHEAP)
    theirs = Server(real_etcd(), tmp_path_factory.mktemp("etcd"), CHEAP)
    with running(ours), running(theirs), connect(ours.endpoint) as one, connect(theirs.endpoint) as other:
        clients = AuthClient(ours, one), AuthClient(theirs, other)
        for client in clients:
            client.set_up()
        yield clients


def puts(request: Any, *, deep: bool) -> bool:
    """Whether a transaction has a put in any branch, in one *deep* inside perhaps."""
    operations = [*request.success, *request.failure]
    return any(
        operation.HasField("request_put")
        or (deep and operation.HasField("request_txn") and puts(operation.request_txn, deep=True))
        for operation in operations
    )


def only_reads(request: Any) -> bool:
    """Whether a transaction reads in all its branches."""
    return all(operation.HasField("request_range") for operation in (*request.success, *request.failure))


def forbidden(row: Row, alarm: int, *, deep: bool) -> str | None:
    """How *alarm* refuses the call of *row* to those who may make it; None if it does not.

    3.5.1 does not look *deep* into transactions for what makes the store grow.
    """
    is_txn = row.method == "Txn"
    if alarm == pb.NOSPACE:
        end = FULL if row.method in GROWS or (is_txn and puts(row.request, deep=deep)) else None
    else:
        end = CORRUPT if row.method in WRITES or (is_txn and not only_reads(row.request)) else None
    if end is not None and row.service in {"lock", "election"}:
        return f"UNKNOWN: {end.partition(': ')[2]}"  # their codes get lost on the way
    return end


def wanted(row: Row, end: str, alarm: int, *, deep: bool) -> str:
    """How a call that ends as *end* without an alarm ends under *alarm*."""
    if any(refusal in end for refusal in REFUSALS):
        return end
    return forbidden(row, alarm, deep=deep) or end


def switch(client: AuthClient, alarm: Any, *, on: bool) -> None:
    """Raise or clear *alarm* for member 7."""
    action = pb.AlarmRequest.ACTIVATE if on else pb.AlarmRequest.DEACTIVATE
    client.call("root", "maintenance", "Alarm", pb.AlarmRequest(action=action, memberID=7, alarm=alarm))


def ends(client: AuthClient, row: Row, alarm: int, callers: tuple[str, ...], *, laid_out: bool) -> dict[str, str]:
    """How the call of *row* ends under *alarm*, on leases as they should be: those that were *laid_out*, if it may."""
    revokes = row.method == "LeaseRevoke" and alarm == pb.NOSPACE
    found = {}
    for together in [(who,) for who in callers] if revokes else [callers]:
        if revokes or not laid_out:
            client.lay_out_leases_for(row)
        switch(client, alarm, on=True)
        for who in together:
            found[who] = client.end(who, row.service, row.method, row.request)
        switch(client, alarm, on=False)
    return found


ALARMS: Final[Mapping[str, int]] = {"NOSPACE": pb.NOSPACE, "CORRUPT": pb.CORRUPT}


@pytest.mark.parametrize("name", ALARMS)
def test_alarms_change_what_is_refused_and_never_who(twins: tuple[AuthClient, AuthClient], name: str) -> None:
    """Whoever may not is told so, alarm or not; whoever may is told of the alarm where it forbids what is asked."""
    subject, reference = twins
    alarm = ALARMS[name]
    wrong = []
    for group, rows in TABLE.items():
        laid_out = False
        for row in rows:
            if row.name in UNREPEATABLE:
                continue
            expected = (row.nobody, row.user, row.root)
            compared = CALLERS if group in BEFORE_THE_LOG else ("root",)
            for client, base, callers in ((subject, expected, CALLERS), (reference, row.old or expected, compared)):
                got = ends(client, row, alarm, callers, laid_out=laid_out)
                deep = client is subject
                want = {who: wanted(row, base[CALLERS.index(who)], alarm, deep=deep) for who in callers}
                if got != want:
                    wrong.append(f"{client.server.program.name}: {row.method}, {row.name}: {got}, not {want}")
            # Under CORRUPT nothing is written, so that they stay so.
            laid_out = laid_out or (alarm == pb.CORRUPT and AuthClient.needs_leases(row))
    assert not wrong, "\n".join(wrong)
    switch(subject, alarm, on=True)
    disable = ("auth", "AuthDisable", pb.AuthDisableRequest())
    assert [subject.end(who, *disable) for who in ("nobody", "user")] == [EMPTY, DENIED]
    switch(subject, alarm, on=False)
    assert subject.end("root", "kv", "Put", pb.PutRequest(key=b"k/1")) == OK
