"""ConfState in the form that bucket meta holds it: JSON with the names of raftpb.ConfState, as etcd writes it."""

from __future__ import annotations

import json

from core.raft.messages import ConfState
from core.types import MemberId


def encode_conf_state(conf_state: ConfState) -> bytes:
    """Return the stored form; empty lists are left out, as Go's encoder leaves them out."""
    stored: dict[str, list[int] | bool] = {
        "voters": list(conf_state.voters),
        "learners": list(conf_state.learners),
        "voters_outgoing": list(conf_state.voters_outgoing),
        "learners_next": list(conf_state.learners_next),
    }
    stored = {name: ids for name, ids in stored.items() if ids}
    stored["auto_leave"] = conf_state.auto_leave
    return json.dumps(stored, separators=(",", ":")).encode()


def decode_conf_state(stored: bytes | None) -> ConfState:
    """Return what encode_conf_state was given; an empty configuration where nothing is stored."""
    if stored is None:
        return ConfState()
    decoded = json.loads(stored)

    def ids(name: str) -> tuple[MemberId, ...]:
        return tuple(MemberId(member) for member in decoded.get(name, ()))

    return ConfState(
        voters=ids("voters"),
        learners=ids("learners"),
        voters_outgoing=ids("voters_outgoing"),
        learners_next=ids("learners_next"),
        auto_leave=bool(decoded.get("auto_leave", False)),
    )
