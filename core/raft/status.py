"""How consensus stands at one member, in the form in which it is shown: etcd's names, ids in hexadecimal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.raft.node import RaftNode


def status(node: RaftNode) -> dict[str, object]:
    """Return what *node* is and how far it has come; a leader tells the same of each member."""
    return {
        "id": f"{node.id:x}",
        "term": node.term,
        "vote": f"{node.vote:x}",
        "commit": node.commit,
        "lead": f"{node.leader_id:x}",
        "raftState": f"State{node.role.value.title().replace('-', '')}",
        "applied": node.applied,
        "progress": {
            f"{member:x}": {
                "match": progress.match,
                "next": progress.next,
                "state": f"State{progress.state.value.title()}",
            }
            for member, progress in node.progress.items()
        },
    }
