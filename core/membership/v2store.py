"""Members in the JSON tree that a raft snapshot file carries.

It is the dump of etcd's retired second store, kept because etcd 3.5 and tools that read its snapshot files learn the
members from it.  actcd itself reads members from the store, apart from a snapshot that comes from another member: etcd
3.5.0 and 3.5.1 write each member to the store once and never again, so what they tell of names, client URLs and
promotions is right only here.  Format: raft snapshot files of etcd, field ``data``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from core.membership.member import MalformedMember, Member, json_object, member_from_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.types import MemberId

_NEVER = "0001-01-01T00:00:00Z"
_EVENTS_KEPT = 1000
"""Places for past events; etcd writes into them by number, so all have to be there."""


def dump(members: Iterable[Member], removed: Iterable[MemberId], cluster_version: str, index: int) -> bytes:
    """Return the tree as of *index*."""
    listed = {}
    for member in members:
        path = f"/0/members/{member.hex_id}"
        raft: dict[str, Any] = {"peerURLs": list(member.peer_urls)}
        if member.is_learner:
            raft["isLearner"] = True
        attributes: dict[str, Any] = {}
        if member.name:
            attributes["name"] = member.name
        if member.client_urls:
            attributes["clientURLs"] = list(member.client_urls)
        listed[member.hex_id] = _folder(
            path,
            {
                "attributes": _leaf(f"{path}/attributes", attributes),
                "raftAttributes": _leaf(f"{path}/raftAttributes", raft),
            },
        )
    gone = {f"{member:x}": _leaf(f"/0/removed_members/{member:x}", "removed") for member in removed}
    children = {"members": _folder("/0/members", listed), "removed_members": _folder("/0/removed_members", gone)}
    if cluster_version:
        children["version"] = _leaf("/0/version", cluster_version)
    root = _folder("/", {"0": _folder("/0", children), "1": _folder("/1", {})})
    store = {
        "Root": root,
        "WatcherHub": {
            "EventHistory": {
                "Queue": {"Events": [None] * _EVENTS_KEPT, "Size": 0, "Front": 0, "Back": 0, "Capacity": _EVENTS_KEPT},
                "StartIndex": 0,
                "LastIndex": 0,
            }
        },
        "CurrentIndex": index,
        "Stats": {},
        "CurrentVersion": 2,
    }
    return json.dumps(store, separators=(",", ":")).encode()


def members_in(data: bytes) -> list[Member]:
    """Return the members in a tree, none if there is no tree; MalformedMember."""
    if not data:
        return []
    node: object = json_object(data).get("Root")
    for name in ("0", "members"):
        node = _child(node, name)
    if node is None:
        return []
    members = []
    for name, folder in _children(node).items():
        if re.fullmatch(r"[0-9a-f]{1,16}", name) is None:
            raise MalformedMember(f"a member is named {name!r}")
        fields: dict[str, object] = {}
        for part in ("raftAttributes", "attributes"):
            leaf = _child(folder, part)
            if leaf is not None:
                fields |= json_object(_value(leaf).encode(errors="replace"))
        members.append(member_from_fields({**fields, "id": int(name, 16)}))
    return members


def _children(node: object) -> dict[str, object]:
    children = node.get("Children") if isinstance(node, dict) else None
    if children is None:
        return {}
    if not isinstance(children, dict):
        raise MalformedMember("a folder of the tree is none")
    return children


def _child(node: object, name: str) -> object:
    return _children(node).get(name)


def _value(node: object) -> str:
    value = node.get("Value") if isinstance(node, dict) else None
    if not isinstance(value, str):
        raise MalformedMember("a leaf of the tree is none")
    return value


def _folder(path: str, children: dict[str, Any]) -> dict[str, Any]:
    return _node(path, "", children)


def _leaf(path: str, value: dict[str, Any] | str) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return _node(path, text, None)


def _node(path: str, value: str, children: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "Path": path,
        "CreatedIndex": 0,
        "ModifiedIndex": 0,
        "ExpireTime": _NEVER,
        "Value": value,
        "Children": children,
    }
