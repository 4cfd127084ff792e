"""Which watchers a key concerns.

Watchers of equal ranges form one group, so that what they are sent is encoded once.  A group of one key is found by a
dict look-up, a group from a key on by its place among the starts, any other in a balanced tree of intervals: no lookup
walks over groups that do not match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sortedcontainers import SortedDict

if TYPE_CHECKING:
    from core.mvcc.watch_streams import Watcher

FROM_KEY: Final = b"\x00"
"""The range_end that means every key from the first on."""


class WatchGroup:
    """The watchers of one range, by what they want to see; see `Watcher.variant`.  Dicts keep the order of arrival."""

    __slots__ = ("variants",)

    def __init__(self) -> None:
        self.variants: dict[int, dict[Watcher, None]] = {}


class WatchRanges:
    """A set of watchers that answers which of them a key concerns."""

    def __init__(self) -> None:
        self._single: dict[bytes, WatchGroup] = {}
        self._from_key: SortedDict[bytes, WatchGroup] = SortedDict()
        self._interval: dict[tuple[bytes, bytes], WatchGroup] = {}
        self._tree: _Node | None = None

    def add(self, watcher: Watcher) -> None:
        """Put a watcher into the group of its range."""
        group = self._find(watcher.key, watcher.range_end)
        if group is None:
            group = self._make(watcher.key, watcher.range_end)
        group.variants.setdefault(watcher.variant, {})[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Take out a watcher that was added."""
        group = self._find(watcher.key, watcher.range_end)
        assert group is not None, watcher.key
        watchers = group.variants[watcher.variant]
        del watchers[watcher]
        if not watchers:
            del group.variants[watcher.variant]
            if not group.variants:
                self._drop(watcher.key, watcher.range_end)

    def match(self, key: bytes) -> list[WatchGroup]:
        """Return the groups whose range holds *key*."""
        group = self._single.get(key)
        groups = [] if group is None else [group]
        if self._tree is not None:
            _stab(self._tree, key, groups)
        if self._from_key:
            groups += [self._from_key[start] for start in self._from_key.irange(maximum=key)]
        return groups

    def _find(self, key: bytes, range_end: bytes) -> WatchGroup | None:
        if not range_end:
            return self._single.get(key)
        if range_end == FROM_KEY:
            return self._from_key.get(key)
        return self._interval.get((key, range_end))

    def _make(self, key: bytes, range_end: bytes) -> WatchGroup:
        group = WatchGroup()
        if not range_end:
            self._single[key] = group
        elif range_end == FROM_KEY:
            self._from_key[key] = group
        else:
            self._interval[key, range_end] = group
            self._tree = _inserted(self._tree, _Node(key, range_end, group))
        return group

    def _drop(self, key: bytes, range_end: bytes) -> None:
        if not range_end:
            del self._single[key]
        elif range_end == FROM_KEY:
            del self._from_key[key]
        else:
            del self._interval[key, range_end]
            assert self._tree is not None
            self._tree = _removed(self._tree, (key, range_end))


class _Node:
    """A node of an AVL tree ordered by (start, end); `end_max` is the greatest end in its subtree."""

    __slots__ = ("end", "end_max", "group", "height", "left", "right", "start")

    def __init__(self, start: bytes, end: bytes, group: WatchGroup) -> None:
        self.start = start
        self.end = end
        self.group = group
        self.left: _Node | None = None
        self.right: _Node | None = None
        self.height = 1
        self.end_max = end

    @property
    def bounds(self) -> tuple[bytes, bytes]:
        return self.start, self.end


def _stab(root: _Node, key: bytes, groups: list[WatchGroup]) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        if key >= node.end_max:
            continue
        if node.left is not None:
            pending.append(node.left)
        if node.start <= key:
            if key < node.end:
                groups.append(node.group)
            if node.right is not None:
                pending.append(node.right)


def _inserted(root: _Node | None, node: _Node) -> _Node:
    if root is None:
        return node
    if node.bounds < root.bounds:
        root.left = _inserted(root.left, node)
    else:
        root.right = _inserted(root.right, node)
    return _balanced(root)


def _removed(root: _Node | None, bounds: tuple[bytes, bytes]) -> _Node | None:
    assert root is not None, bounds
    if bounds < root.bounds:
        root.left = _removed(root.left, bounds)
        return _balanced(root)
    if bounds > root.bounds:
        root.right = _removed(root.right, bounds)
        return _balanced(root)
    if root.left is None:
        return root.right
    if root.right is None:
        return root.left
    heir = root.right
    while heir.left is not None:
        heir = heir.left
    heir.right = _removed(root.right, heir.bounds)
    heir.left = root.left
    return _balanced(heir)


def _height(node: _Node | None) -> int:
    return 0 if node is None else node.height


def _balanced(root: _Node) -> _Node:
    lean = _height(root.left) - _height(root.right)
    if lean > 1:
        assert root.left is not None
        if _height(root.left.left) < _height(root.left.right):
            root.left = _rotated_left(root.left)
        return _rotated_right(root)
    if lean < -1:
        assert root.right is not None
        if _height(root.right.right) < _height(root.right.left):
            root.right = _rotated_right(root.right)
        return _rotated_left(root)
    return _measured(root)


def _rotated_left(root: _Node) -> _Node:
    top = root.right
    assert top is not None
    root.right = top.left
    top.left = _measured(root)
    return _measured(top)


def _rotated_right(root: _Node) -> _Node:
    top = root.left
    assert top is not None
    root.left = top.right
    top.right = _measured(root)
    return _measured(top)


def _measured(node: _Node) -> _Node:
    node.height = 1 + max(_height(node.left), _height(node.right))
    node.end_max = node.end
    for child in (node.left, node.right):
        if child is not None and child.end_max > node.end_max:
            node.end_max = child.end_max
    return node
