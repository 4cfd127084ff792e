"""Feature gates: behaviours that are switched by name, each with a stage and a default.

Owns the table of gates and the syntax ``A=true,B=false``.  Spec: etcd's ``--feature-gates``; what keeps members from
silently differing is on by default here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from config.booleans import parse_bool
from config.faults import BadValue


@dataclass(frozen=True, slots=True)
class Gate:
    """One switchable behaviour."""

    name: str
    stage: str
    default: bool
    meaning: str
    has_effect: bool = True
    """Whether it switches anything here."""


class GateSwitch(NamedTuple):
    """A gate that was switched away from its default."""

    name: str
    on: bool


GATES: tuple[Gate, ...] = (
    Gate("StopGRPCServiceOnDefrag", "alpha", False, "health says NOT_SERVING during defragmentation"),
    Gate("InitialCorruptCheck", "alpha", True, "compare hashes with the other members before serving"),
    Gate("CompactHashCheck", "alpha", True, "the leader compares the members' compaction hashes"),
    Gate("TxnModeWriteWithSharedBuffer", "beta", True, "tuning of etcd's bbolt transactions", has_effect=False),
    Gate("LeaseCheckpoint", "alpha", True, "replicate the remaining time of leases"),
    Gate("LeaseCheckpointPersist", "alpha", True, "keep it across restarts; needs LeaseCheckpoint"),
    Gate("SetMemberLocalAddr", "alpha", False, "dial peers from the advertised address"),
    Gate("FastLeaseKeepAlive", "beta", True, "renew a known lease without waiting for apply"),
    Gate("PriorityRequest", "alpha", False, "let lease revocations pass the limit on requests"),
)
_BY_NAME = {gate.name: gate for gate in GATES}
_STAGES = {"AllAlpha": "alpha", "AllBeta": "beta"}


def parse_gates(text: str) -> tuple[GateSwitch, ...]:
    """Return the gates that *text* switches away from their defaults; a gate named twice takes its last value."""
    wanted: dict[str, bool] = {}
    stages: dict[str, bool] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if name not in _BY_NAME and name not in _STAGES:
            raise BadValue(f"unrecognized feature gate: {name}")
        try:
            on = parse_bool(value)
        except BadValue as error:
            reason = f'strconv.ParseBool: parsing "{value}": invalid syntax'
            raise BadValue(f"invalid value of {name}={value}, err: {reason}") from error
        (stages if name in _STAGES else wanted)[name] = on
    for stage, on in stages.items():
        for gate in GATES:
            if gate.stage == _STAGES[stage]:
                wanted.setdefault(gate.name, on)
    if wanted.get("LeaseCheckpointPersist") and wanted.get("LeaseCheckpoint") is False:
        raise BadValue("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
    return tuple(GateSwitch(name, on) for name, on in sorted(wanted.items()) if on != _BY_NAME[name].default)


def is_on(switches: tuple[GateSwitch, ...], name: str) -> bool:
    """Return whether the gate *name* is on, given those that were switched."""
    return dict(switches).get(name, _BY_NAME[name].default)


def format_gates(switches: tuple[GateSwitch, ...]) -> str:
    """Return *switches* as ``A=true,B=false``."""
    return ",".join(f"{name}={str(on).lower()}" for name, on in switches)


def without_effect(switches: tuple[GateSwitch, ...]) -> tuple[str, ...]:
    """Return those gates among *switches* that change nothing here."""
    return tuple(name for name, _ in switches if not _BY_NAME[name].has_effect)
