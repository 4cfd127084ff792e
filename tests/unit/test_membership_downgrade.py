"""Going back a release: which target is allowed, when the version falls, and when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from core.errors import (
    ClusterVersionUnavailable,
    DowngradeInProcess,
    EtcdError,
    InvalidDowngradeTargetVersion,
    WrongDowngradeVersionFormat,
)
from core.membership.downgrade import Downgrade, checked_target, is_complete, version_to_lower_to
from core.membership.version import Version
from core.types import Term
from proto.membership_pb2 import ClusterVersionSetRequest, DowngradeInfoSetRequest
from proto.rpc_pb2 import DowngradeRequest, DowngradeResponse
from services.maintenance import DOWNGRADE_TAG, MaintenanceService
from tests.entries import Log, make_applier
from tests.fake_node import FakeNode
from tests.fakes import FakeCall

if TYPE_CHECKING:
    from core.apply.applier import Applier

ON, OFF = Downgrade("3.4.0"), Downgrade()


@pytest.mark.parametrize("text", ["3.4", "3.4.0", "3.4.99"])
def test_the_release_before_is_allowed_whatever_its_patch(text: str) -> None:
    """Operators name the version that they are going to install."""
    assert checked_target(text, "3.5.0", OFF) == Version(3, 4)


@pytest.mark.parametrize(
    ("text", "version", "current", "error"),
    [
        ("", "3.5.0", OFF, WrongDowngradeVersionFormat),
        ("3", "3.5.0", OFF, WrongDowngradeVersionFormat),
        ("v3.4", "3.5.0", OFF, WrongDowngradeVersionFormat),
        ("3.3", "3.5.0", OFF, InvalidDowngradeTargetVersion),
        ("3.5", "3.5.0", OFF, InvalidDowngradeTargetVersion),
        ("3.6", "3.5.0", OFF, InvalidDowngradeTargetVersion),
        ("3.4", "", OFF, ClusterVersionUnavailable),
        ("3.4", "3.5.0", ON, DowngradeInProcess),
        ("2.9", "3.0.0", OFF, InvalidDowngradeTargetVersion),
    ],
)
def test_others_are_refused_in_etcds_order(text: str, version: str, current: Downgrade, error: type[EtcdError]) -> None:
    """A member two releases back could not read what this one writes."""
    with pytest.raises(error):
        checked_target(text, version, current)


def test_the_version_falls_once_and_only_with_all_members_known() -> None:
    """Who does not answer may run a release that cannot follow."""
    new, old = Version(3, 5, 9), Version(3, 4, 20)
    assert version_to_lower_to("3.5.0", [new, new], ON) == "3.4.0"
    assert version_to_lower_to("3.5.0", [new, None], ON) is None
    assert version_to_lower_to("3.4.0", [new, old], ON) is None
    assert version_to_lower_to("", [new], ON) is None


def test_it_is_over_when_all_run_the_target() -> None:
    """Then the cluster may rise again by itself when members do."""
    assert is_complete([Version(3, 4, 1), Version(3, 4, 20)], ON)
    assert not is_complete([Version(3, 4, 1), Version(3, 5, 1)], ON)
    assert not is_complete([Version(3, 4, 1), None], ON)
    assert not is_complete([], ON)


def test_what_was_agreed_on_survives_a_restart_in_etcds_form() -> None:
    """A member of either kind finds it in its store; 3.5.1 proposes the same entry."""
    applier, log = make_applier(), Log()

    def apply(**fields: Any) -> Applier:
        entry, _ = log.request(**fields)
        applier.apply([entry], Term(1))
        applier.store.flush()
        return make_applier(applier.store.backend)

    apply(cluster_version_set=ClusterVersionSetRequest(ver="3.5.0"))
    restarted = apply(downgrade_info_set=DowngradeInfoSetRequest(enabled=True, ver="3.4.0"))
    assert restarted.cluster.downgrade == ON
    outcomes = applier.take_effects().outcomes
    assert DowngradeResponse.FromString(bytes(outcomes[-1][1])).version == "3.5"  # type: ignore[arg-type]  # no error
    assert ON.to_json() == b'{"target-version":"3.4.0","enabled":true}'
    assert apply(downgrade_info_set=DowngradeInfoSetRequest()).cluster.downgrade == OFF


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b'{"target-version":"x","enabled":true}'])
def test_what_nobody_wrote_is_no_downgrade(text: bytes) -> None:
    """A damaged record must not keep a member from starting."""
    assert Downgrade.from_json(text) == OFF


def called(action: int, version: str = "", *, on: bool = False) -> tuple[FakeNode, FakeCall]:
    node, call = FakeNode(), FakeCall()
    node.cluster_version = "3.5.0"
    node.downgrade = ON if on else OFF
    MaintenanceService(node).downgrade(call, DowngradeRequest(action=action, version=version).SerializeToString())  # type: ignore[arg-type]
    node.run_reads()
    return node, call


def test_validate_only_looks() -> None:
    """It answers with the cluster's version, or with why the target cannot be."""
    node, call = called(DowngradeRequest.VALIDATE, "3.4.0")
    assert DowngradeResponse.FromString(call.answer or b"").version == "3.5"
    assert node.proposed == []
    _, refused = called(DowngradeRequest.VALIDATE, "3.3.0")
    assert refused.status is not None
    assert refused.status.message == "etcdserver: invalid downgrade target version"


def test_enable_and_cancel_go_through_the_log() -> None:
    """All members must know; a cancel of nothing is refused, as by etcd 3.5."""
    node, _ = called(DowngradeRequest.ENABLE, "3.4.7")
    [proposed] = node.proposed
    assert proposed.tag == DOWNGRADE_TAG
    assert DowngradeInfoSetRequest.FromString(proposed.body) == DowngradeInfoSetRequest(enabled=True, ver="3.4.0")
    node, _ = called(DowngradeRequest.CANCEL, on=True)
    assert DowngradeInfoSetRequest.FromString(node.proposed[0].body) == DowngradeInfoSetRequest()
    node, call = called(DowngradeRequest.CANCEL)
    assert node.proposed == []
    assert call.status is not None
    assert call.status.message == "etcdserver: no inflight downgrade job"


def test_an_action_of_the_future_is_refused() -> None:
    """With etcd's words."""
    _, call = called(9)
    assert call.status is not None
    assert call.status.message == "etcdserver: unknown method"
