"""Who may do what, as of one auth revision.

The one place where a permission is decided, for reads where they are answered and for writes where they are applied,
so that a permission that holds for one holds for the other.  Rules: section Auth of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.auth.permissions import READ, WRITE, KeyRanges, Permission
from core.errors import AuthOldRevision, PermissionDenied, UserEmpty, UserNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT_USER = "root"
ROOT_ROLE = "root"

FIRST_REVISION = 1
"""The auth revision of a store in which nothing about auth was ever changed."""


class Identity(NamedTuple):
    """Who asks, and how old what vouches for it is."""

    user: str
    revision: int
    """The auth revision at which the token was made; a token of the simple kind is always of the current one."""


NOBODY = Identity("", 0)
"""Who shows neither a token nor a certificate."""


class User(NamedTuple):
    """A user as it is stored."""

    name: str
    password: bytes
    """The bcrypt hash in its text form; empty for a user who cannot log in."""
    roles: tuple[str, ...] = ()
    """Ascending."""
    no_password: bool = False


class Role(NamedTuple):
    """A role as it is stored."""

    name: str
    permissions: tuple[Permission, ...] = ()
    """Ascending by key."""


class Rules:
    """Users, roles and whether they count.  Nobody changes one that was handed out, so any thread may hold it."""

    __slots__ = ("_ranges", "enabled", "revision", "roles", "users")

    def __init__(self, enabled: bool, revision: int, users: Mapping[str, User], roles: Mapping[str, Role]) -> None:
        self.enabled = enabled
        self.revision = revision
        self.users = users
        self.roles = roles
        # Filled on demand.  Whoever fills it twice at once fills in the same.
        self._ranges: dict[str, tuple[KeyRanges, KeyRanges]] = {}

    def is_root(self, identity: Identity) -> bool:
        """Whether the root role is held, which is allowed everything."""
        user = self.users.get(identity.user)
        return user is not None and ROOT_ROLE in user.roles

    def has_role(self, identity: Identity, role: str) -> bool:
        """Whether *role* is held."""
        user = self.users.get(identity.user)
        return user is not None and role in user.roles

    def check_root(self, identity: Identity) -> None:
        """Allow what only an administrator may do.  Raises UserEmpty, UserNotFound or PermissionDenied."""
        if not self.enabled:
            return
        if not identity.user:
            raise UserEmpty
        if identity.user not in self.users:
            raise UserNotFound
        if not self.is_root(identity):
            raise PermissionDenied

    def check_known(self, identity: Identity) -> None:
        """Allow what anybody may do who has shown who it is.  Raises UserEmpty."""
        if self.enabled and identity == NOBODY:
            raise UserEmpty

    def check_key(self, identity: Identity, key: bytes, range_end: bytes, access: int) -> None:
        """Allow *access*, READ or WRITE, to [key, range_end).

        Raises UserEmpty, AuthOldRevision or PermissionDenied.
        """
        if not self.enabled:
            return
        if identity.revision == 0:
            raise UserEmpty
        if identity.revision < self.revision:
            raise AuthOldRevision
        user = self.users.get(identity.user)
        if user is None:
            raise PermissionDenied
        if ROOT_ROLE in user.roles:
            return
        ranges = self._ranges.get(user.name)
        if ranges is None:
            ranges = self._ranges[user.name] = self._merged(user)
        if not ranges[access].covers(key, range_end):
            raise PermissionDenied

    def check_keys(self, identity: Identity, keys: Iterable[bytes], access: int) -> None:
        """Allow *access* to each of *keys*; root may, whatever its token's age.  Raises as check_key."""
        if self.enabled and not self.is_root(identity):
            for key in keys:
                self.check_key(identity, key, b"", access)

    def _merged(self, user: User) -> tuple[KeyRanges, KeyRanges]:
        """Return what *user* may read, and what it may write."""
        granted = [
            permission
            for name in user.roles
            if (role := self.roles.get(name)) is not None
            for permission in role.permissions
        ]

        def ranges(access: int) -> KeyRanges:
            return KeyRanges((each.key, each.range_end) for each in granted if each.grants(access))

        return ranges(READ), ranges(WRITE)


NO_RULES = Rules(enabled=False, revision=FIRST_REVISION, users={}, roles={})
"""Those of a store without auth: everybody may do everything."""
