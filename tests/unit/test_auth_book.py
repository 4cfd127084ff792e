"""What administration changes, what it is refused for, and what counts as a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.auth.book import AuthBook
from core.auth.permissions import READ, READWRITE, WRITE, Permission
from core.auth.rules import NOBODY, Identity, Role, User
from core.errors import (
    AuthOldRevision,
    EtcdError,
    InvalidAuthManagement,
    PermissionDenied,
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
    from collections.abc import Callable

    Change = Callable[[AuthBook], object]


REVISION = 8
"""The auth revision of a filled book."""


class Records:
    """See core.auth.book.Records: keeps everything in dictionaries."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.roles: dict[str, Role] = {}
        self.enabled = False
        self.revision = 0

    def put_user(self, user: User, /) -> None:
        self.users[user.name] = user

    def delete_user(self, name: str, /) -> None:
        del self.users[name]

    def put_role(self, role: Role, /) -> None:
        self.roles[role.name] = role

    def delete_role(self, name: str, /) -> None:
        del self.roles[name]

    def put_enabled(self, enabled: bool, /) -> None:
        self.enabled = enabled

    def put_revision(self, revision: int, /) -> None:
        self.revision = revision


def open_book(records: Records) -> AuthBook:
    """Return the book of what *records* hold."""
    return AuthBook(records, records.enabled, records.revision, records.users.values(), records.roles.values())


def filled(*, enabled: bool = True) -> tuple[AuthBook, Records]:
    """Return a book with root, a user, a role, and one role that nobody holds."""
    records = Records()
    book = open_book(records)
    book.add_user("root", b"hash", no_password=False)
    book.grant_role("root", "root")
    book.add_user("user", b"hash", no_password=False)
    book.add_role("role")
    book.add_role("spare")
    book.grant_permission("role", Permission(READ, b"k"))
    book.grant_role("user", "role")
    if enabled:
        book.enable()
    return book, records


CHANGES: dict[str, Change] = {
    "add user": lambda book: book.add_user("new", b"hash", no_password=False),
    "delete user": lambda book: book.delete_user("user"),
    "change password": lambda book: book.change_password("user", b"other"),
    "grant role": lambda book: book.grant_role("user", "spare"),
    "grant the root role, which is not there": lambda book: book.grant_role("user", "root"),
    "revoke role": lambda book: book.revoke_role("user", "role"),
    "add role": lambda book: book.add_role("new"),
    "delete role": lambda book: book.delete_role("role"),
    "grant permission": lambda book: book.grant_permission("role", Permission(WRITE, b"w")),
    "grant it again": lambda book: book.grant_permission("role", Permission(READ, b"k")),
    "revoke permission": lambda book: book.revoke_permission("role", b"k", b""),
    "disable": lambda book: book.disable(),
}
NO_CHANGES: dict[str, Change] = {
    "grant a role that is held": lambda book: book.grant_role("user", "role"),
    "enable again": lambda book: book.enable(),
}


@pytest.mark.parametrize("name", [*CHANGES, *NO_CHANGES])
def test_the_auth_revision_counts_changes(name: str) -> None:
    """Each change makes signed tokens old, one for all; what changes nothing must not."""
    book, records = filled()
    before, rules = book.rules.revision, book.rules
    (CHANGES | NO_CHANGES)[name](book)
    counted = int(name in CHANGES)
    assert book.rules.revision == before + counted
    assert records.revision == before + counted
    assert (book.rules is rules) is not counted


@pytest.mark.parametrize("name", [*CHANGES, *NO_CHANGES])
def test_what_is_stored_is_what_is_known(name: str) -> None:
    """A member that starts again must know what it knew."""
    book, records = filled()
    (CHANGES | NO_CHANGES)[name](book)
    again = open_book(records)
    assert again.rules.users == book.rules.users
    assert again.rules.roles == book.rules.roles
    assert (again.rules.revision, again.enabled) == (book.rules.revision, book.enabled)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda book: book.add_user("", b"", no_password=True), UserEmpty),
        (lambda book: book.add_user("user", b"", no_password=True), UserAlreadyExists),
        (lambda book: book.delete_user("none"), UserNotFound),
        (lambda book: book.delete_user("root"), InvalidAuthManagement),
        (lambda book: book.change_password("none", b""), UserNotFound),
        (lambda book: book.grant_role("none", "role"), UserNotFound),
        (lambda book: book.grant_role("user", "none"), RoleNotFound),
        (lambda book: book.revoke_role("none", "role"), UserNotFound),
        (lambda book: book.revoke_role("user", "spare"), RoleNotGranted),
        (lambda book: book.revoke_role("root", "root"), InvalidAuthManagement),
        (lambda book: book.user("none"), UserNotFound),
        (lambda book: book.role("none"), RoleNotFound),
        (lambda book: book.add_role(""), RoleEmpty),
        (lambda book: book.add_role("role"), RoleAlreadyExists),
        (lambda book: book.delete_role("none"), RoleNotFound),
        (lambda book: book.delete_role("root"), InvalidAuthManagement),
        (lambda book: book.grant_permission("none", Permission(READ, b"k")), RoleNotFound),
        (lambda book: book.grant_permission("role", Permission(READ, b"")), InvalidAuthManagement),
        (lambda book: book.grant_permission("role", Permission(READ, b"b", b"a")), InvalidAuthManagement),
        (lambda book: book.revoke_permission("none", b"k", b""), RoleNotFound),
        (lambda book: book.revoke_permission("role", b"k", b"l"), PermissionNotGranted),
    ],
)
def test_a_refusal_changes_nothing(change: Change, error: type[EtcdError]) -> None:
    """What is refused must be refused alike, and leave no trace, on every member."""
    book, records = filled()
    before = book.rules
    with pytest.raises(error):
        change(book)
    assert book.rules is before
    assert records.revision == before.revision


def test_enabling_needs_a_root_that_can_undo_it() -> None:
    """Without it nobody could ever administer again."""
    book = open_book(Records())
    with pytest.raises(RootUserNotExist):
        book.enable()
    book.add_user("root", b"hash", no_password=False)
    with pytest.raises(RootRoleNotExist):
        book.enable()
    book.grant_role("root", "root")
    book.enable()
    assert book.enabled


def test_root_may_be_touched_while_auth_is_off() -> None:
    """The guard is for clusters that need root."""
    book, _ = filled(enabled=False)
    book.revoke_role("root", "root")
    book.delete_user("root")
    assert book.user_names() == ["user"]


def test_a_deleted_role_is_taken_from_all_who_held_it() -> None:
    """A role of that name made later is another one."""
    book, _ = filled()
    book.delete_role("role")
    assert book.user("user").roles == ()
    book.add_role("role")
    assert book.user("user").roles == ()


def test_a_user_without_password_never_gets_one() -> None:
    """It is for certificates; a password would open another door."""
    book, _ = filled()
    book.add_user("ghost", b"hash", no_password=True)
    book.change_password("ghost", b"hash")
    assert book.user("ghost") == User("ghost", b"", no_password=True)


def test_a_grant_on_the_same_range_changes_its_type() -> None:
    """Granting less must take away what was more."""
    book, _ = filled()
    book.grant_permission("role", Permission(READWRITE, b"a", b"c"))
    book.grant_permission("role", Permission(READWRITE, b"k", b"m"))
    book.grant_permission("role", Permission(WRITE, b"k"))
    book.grant_permission("role", Permission(READ, b"k", b"m"))
    assert book.role("role").permissions == (
        Permission(READWRITE, b"a", b"c"),
        Permission(WRITE, b"k"),
        Permission(READ, b"k", b"m"),
    )


def test_names_come_sorted() -> None:
    """Every member lists alike, in whatever order they were added."""
    book = open_book(Records())
    for name in ("b", "ä", "a", "Z"):
        book.add_user(name, b"", no_password=True)
        book.add_role(name)
    assert book.user_names() == book.role_names() == ["Z", "a", "b", "ä"]
    for role in ("b", "a"):
        book.grant_role("Z", role)
    assert book.user("Z").roles == ("a", "b")


@pytest.mark.parametrize(
    ("identity", "root", "own", "other"),
    [
        (NOBODY, UserEmpty, UserEmpty, UserEmpty),
        (Identity("root", REVISION), None, None, None),
        (Identity("root", 1), None, AuthOldRevision, AuthOldRevision),
        (Identity("user", REVISION), PermissionDenied, None, PermissionDenied),
        (Identity("user", REVISION - 1), PermissionDenied, AuthOldRevision, AuthOldRevision),
        (Identity("user", REVISION + 1), PermissionDenied, None, PermissionDenied),
        (Identity("gone", REVISION), UserNotFound, PermissionDenied, PermissionDenied),
        (Identity("user", 0), PermissionDenied, UserEmpty, UserEmpty),
    ],
)
def test_who_passes_which_check(
    identity: Identity, root: type[EtcdError] | None, own: type[EtcdError] | None, other: type[EtcdError] | None
) -> None:
    """Administration looks at the role only; keys look at the token's age too, and first."""
    rules = filled()[0].rules
    assert rules.revision == REVISION
    checks: list[tuple[Callable[[], None], type[EtcdError] | None]] = [
        (lambda: rules.check_root(identity), root),
        (lambda: rules.check_key(identity, b"k", b"", READ), own),
        (lambda: rules.check_key(identity, b"other", b"", READ), other),
    ]
    for check, error in checks:
        if error is None:
            check()
        else:
            with pytest.raises(error):
                check()


def test_while_auth_is_off_everybody_passes() -> None:
    """Rules that are there but not on bind nobody."""
    rules = filled(enabled=False)[0].rules
    rules.check_root(NOBODY)
    rules.check_known(NOBODY)
    rules.check_key(NOBODY, b"k", b"", WRITE)
    rules.check_keys(NOBODY, [b"k"], WRITE)


def test_keys_of_a_lease_are_open_to_root_with_an_old_token() -> None:
    """An old token lets administrators through where attached keys are concerned, as in etcd."""
    rules = filled()[0].rules
    rules.check_keys(Identity("root", 1), [b"any"], WRITE)
    rules.check_keys(Identity("user", rules.revision), [b"k"], READ)
    with pytest.raises(PermissionDenied):
        rules.check_keys(Identity("user", rules.revision), [b"k", b"other"], READ)
