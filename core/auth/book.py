"""The users, roles and switch of auth: what each administrative request changes, and what it is refused for.

Replicated state: held by the applier and changed by entries only, so every method is a pure function of state and
arguments.  Passwords arrive hashed.  What changed is told to Records, which knows how it is stored.
Rules and texts: section Auth of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.auth.permissions import Permission, is_valid_range
from core.auth.rules import FIRST_REVISION, ROOT_ROLE, ROOT_USER, Role, Rules, User
from core.errors import (
    InvalidAuthManagement,
    PermissionNotGranted,
    RoleAlreadyExists,
    RoleEmpty,
    RoleNotFound,
    RoleNotGranted,
    RootRoleNotExist,
    RootUserNotExist,
    UserAlreadyExists,
    UserEmpty,
    UserNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class Records(Protocol):
    """Where the state is stored."""

    def put_user(self, user: User, /) -> None:
        """Store *user* in place of any of that name."""

    def delete_user(self, name: str, /) -> None:
        """Forget a user."""

    def put_role(self, role: Role, /) -> None:
        """Store *role* in place of any of that name."""

    def delete_role(self, name: str, /) -> None:
        """Forget a role."""

    def put_enabled(self, enabled: bool, /) -> None:
        """Store whether auth is on."""

    def put_revision(self, revision: int, /) -> None:
        """Store the auth revision."""


class AuthBook:
    """Belongs to whoever applies entries."""

    def __init__(
        self, records: Records, enabled: bool, revision: int, users: Iterable[User], roles: Iterable[Role]
    ) -> None:
        """Take up what is stored; a *revision* of 0 means that nothing is."""
        self._records = records
        self._users = {user.name: user for user in users}
        self._roles = {role.name: role for role in roles}
        self.enabled = enabled
        """Whether permissions count."""
        self._revision = revision or FIRST_REVISION
        self._rules: Rules | None = None

    @property
    def rules(self) -> Rules:
        """Who may do what now.  Another object after each change, made when it is asked for."""
        if self._rules is None:
            self._rules = Rules(self.enabled, self._revision, dict(self._users), dict(self._roles))
        return self._rules

    # -- the switch --------------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """Let permissions count from now on.  Raises RootUserNotExist or RootRoleNotExist."""
        if self.enabled:
            return
        root = self._users.get(ROOT_USER)
        if root is None:
            raise RootUserNotExist
        if ROOT_ROLE not in root.roles:
            raise RootRoleNotExist
        self.enabled = True
        self._records.put_enabled(True)
        self._rules = None

    def disable(self) -> bool:
        """Let everybody do everything; whether that is a change."""
        if not self.enabled:
            return False
        self.enabled = False
        self._records.put_enabled(False)
        self._commit()
        return True

    # -- users -------------------------------------------------------------------------------------------------------

    def user(self, name: str) -> User:
        """Return a user; UserNotFound."""
        try:
            return self._users[name]
        except KeyError:
            raise UserNotFound from None

    def user_names(self) -> list[str]:
        """Return every user's name, ascending."""
        return sorted(self._users)

    def add_user(self, name: str, password: bytes, no_password: bool) -> None:
        """Add a user without roles.  Raises UserEmpty or UserAlreadyExists."""
        if not name:
            raise UserEmpty
        if name in self._users:
            raise UserAlreadyExists
        self._put_user(User(name, b"" if no_password else password, no_password=no_password))

    def delete_user(self, name: str) -> None:
        """Forget a user.  Raises InvalidAuthManagement for root while auth is on, or UserNotFound."""
        if self.enabled and name == ROOT_USER:
            raise InvalidAuthManagement
        self.user(name)
        del self._users[name]
        self._records.delete_user(name)
        self._commit()

    def change_password(self, name: str, password: bytes) -> None:
        """Give a user another password; one without password stays so.  Raises UserNotFound."""
        user = self.user(name)
        self._put_user(user._replace(password=b"" if user.no_password else password))

    def grant_role(self, name: str, role: str) -> None:
        """Give a role to a user; one already held changes nothing.  Raises UserNotFound or RoleNotFound.

        The root role may be given before it exists.
        """
        user = self.user(name)
        if role != ROOT_ROLE:
            self.role(role)
        if role not in user.roles:
            self._put_user(user._replace(roles=tuple(sorted((*user.roles, role)))))

    def revoke_role(self, name: str, role: str) -> None:
        """Take a role from a user.

        Raises InvalidAuthManagement for the root role of root while auth is on, UserNotFound or RoleNotGranted.
        """
        if self.enabled and (name, role) == (ROOT_USER, ROOT_ROLE):
            raise InvalidAuthManagement
        user = self.user(name)
        if role not in user.roles:
            raise RoleNotGranted
        self._put_user(_without(user, role))

    # -- roles -------------------------------------------------------------------------------------------------------

    def role(self, name: str) -> Role:
        """Return a role; RoleNotFound."""
        try:
            return self._roles[name]
        except KeyError:
            raise RoleNotFound from None

    def role_names(self) -> list[str]:
        """Return every role's name, ascending."""
        return sorted(self._roles)

    def add_role(self, name: str) -> None:
        """Add a role without permissions.  Raises RoleEmpty or RoleAlreadyExists."""
        if not name:
            raise RoleEmpty
        if name in self._roles:
            raise RoleAlreadyExists
        self._put_role(Role(name))

    def delete_role(self, name: str) -> None:
        """Forget a role and take it from every user.

        Raises InvalidAuthManagement for the root role while auth is on, or RoleNotFound.
        """
        if self.enabled and name == ROOT_ROLE:
            raise InvalidAuthManagement
        self.role(name)
        del self._roles[name]
        self._records.delete_role(name)
        for user in [user for user in self._users.values() if name in user.roles]:
            left = self._users[user.name] = _without(user, name)
            self._records.put_user(left)
        self._commit()

    def grant_permission(self, name: str, permission: Permission) -> None:
        """Add a permission to a role, or change the type of the one on the same range.

        Raises InvalidAuthManagement for a range that holds no key, or RoleNotFound.
        """
        if not is_valid_range(permission.key, permission.range_end):
            raise InvalidAuthManagement
        role = self.role(name)
        others = [each for each in role.permissions if each[1:] != permission[1:]]
        self._put_role(Role(name, tuple(sorted([*others, permission], key=_range_of))))

    def revoke_permission(self, name: str, key: bytes, range_end: bytes) -> None:
        """Take the permission on exactly this range from a role.  Raises RoleNotFound or PermissionNotGranted."""
        role = self.role(name)
        left = tuple(each for each in role.permissions if each[1:] != (key, range_end))
        if len(left) == len(role.permissions):
            raise PermissionNotGranted
        self._put_role(Role(name, left))

    # -- changes -----------------------------------------------------------------------------------------------------

    def _put_user(self, user: User) -> None:
        self._users[user.name] = user
        self._records.put_user(user)
        self._commit()

    def _put_role(self, role: Role) -> None:
        self._roles[role.name] = role
        self._records.put_role(role)
        self._commit()

    def _commit(self) -> None:
        self._revision += 1
        self._records.put_revision(self._revision)
        self._rules = None


def _without(user: User, role: str) -> User:
    return user._replace(roles=tuple(each for each in user.roles if each != role))


def _range_of(permission: Permission) -> tuple[bytes, bytes]:
    return permission[1:]
