"""How single values are read: durations, numbers, switches, URLs, the initial cluster, feature gates."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import kinds
from config.durations import format_duration, parse_duration_s
from config.faults import BadValue
from config.gates import GATES
from config.schema import DECLARED
from config.urls import SCHEMES, parse_initial_cluster, parse_url, parse_urls


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("0", 0, "0s"),
        ("5s", 5, "5s"),
        ("100ms", 0.1, "100ms"),
        ("1h30m", 5400, "1h30m0s"),
        ("1.5h", 5400, "1h30m0s"),
        ("90s", 90, "1m30s"),
        ("2h", 7200, "2h0m0s"),
        ("1m0.5s", 60.5, "1m0.5s"),
        (".5s", 0.5, "500ms"),
        ("250us", 0.00025, "250µs"),
        ("1500ns", 0.0000015, "1.5µs"),
        ("7ns", 0.000000007, "7ns"),
        ("-10s", -10, "-10s"),
        ("+1s", 1, "1s"),
    ],
)
def test_durations_are_gos(text: str, seconds: float, shown: str) -> None:
    """Operators write durations as for etcd, and find them again in messages as Go prints them."""
    assert parse_duration_s(text) == pytest.approx(seconds)
    assert format_duration(parse_duration_s(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "5 s", "1d", "-", "1s ", "1..5s", "9223372036s1h", "\u0665s", "10000000h"],
)
def test_bad_durations_are_refused(text: str) -> None:
    """A number without a unit above all: Go refuses it, so a file of ours would not work for etcd."""
    with pytest.raises(BadValue, match=r"^parse error$"):
        parse_duration_s(text)


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_every_shown_duration_can_be_read(microseconds: int) -> None:
    """What a message shows can be put into a file."""
    assert parse_duration_s(format_duration(microseconds / 10**6)) == pytest.approx(microseconds / 10**6)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.UNSIGNED, "0x10", 16),
        (kinds.UNSIGNED, "010", 8),
        (kinds.UNSIGNED, "0o1_0", 8),
        (kinds.UNSIGNED, "0_10", 8),
        (kinds.UNSIGNED, "1_000", 1000),
        (kinds.UNSIGNED, "0", 0),
        (kinds.SIGNED, "-1", -1),
        (kinds.SIGNED, "-010", -8),
        (kinds.UNSIGNED_32, "4294967295", 0xFFFFFFFF),
        (kinds.SWITCH, "T", True),
        (kinds.SWITCH, "0", False),
        (kinds.LIST, "b, a,,b", ("a", "b")),
        (kinds.ALLOWED, "", ("*",)),
        (kinds.OPTIONAL_URLS, "", ()),
        (kinds.GATES, "", ()),
    ],
)
def test_flag_texts_are_read_as_go_does(kind: kinds.Kind[Any], text: str, value: object) -> None:
    """Go's strconv decides what a number and a boolean are."""
    assert kind.from_text(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "rule"),
    [
        (kinds.UNSIGNED, "-1", "parse error"),
        (kinds.UNSIGNED, "x", "parse error"),
        (kinds.UNSIGNED, "", "parse error"),
        (kinds.UNSIGNED, "1.0", "parse error"),
        (kinds.UNSIGNED, "08", "parse error"),
        (kinds.UNSIGNED, "1__0", "parse error"),
        (kinds.UNSIGNED, "0x", "parse error"),
        (kinds.UNSIGNED_32, "4294967296", "value out of range"),
        (kinds.SIGNED, "9223372036854775808", "value out of range"),
        (kinds.SWITCH, "yes", "parse error"),
        (kinds.EXTENSIONS, "[]", "can be set in the configuration file only"),
        (kinds.GATES, "Nope=true", "unrecognized feature gate: Nope"),
        (kinds.GATES, "LeaseCheckpoint=x", "invalid value of LeaseCheckpoint=x, err: "),
        (
            kinds.GATES,
            "LeaseCheckpoint=false,LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
    ],
)
def test_bad_flag_texts_name_gos_rule(kind: kinds.Kind[Any], text: str, rule: str) -> None:
    """The words are those that etcd's users find when they search for them."""
    with pytest.raises(BadValue) as caught:
        kind.from_text(text)
    assert str(caught.value).startswith(rule)


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        (kinds.TEXT, 3, "expected a text (put it into quotes), found the number 3"),
        (kinds.TEXT, True, "expected a text (put it into quotes), found the boolean true"),
        (kinds.SWITCH, "true", 'expected true or false, found the text "true"'),
        (kinds.UNSIGNED, "100", 'expected a whole number, found the text "100"'),
        (kinds.UNSIGNED, True, "expected a whole number, found the boolean true"),
        (kinds.UNSIGNED, 1.5, "expected a whole number, found the number 1.5"),
        (kinds.UNSIGNED, -1, "parse error"),
        (kinds.DURATION_S, 1.5, "expected whole nanoseconds or a duration such as 5s, found the number 1.5"),
        (kinds.DURATION_S, 2**70, "value out of range"),
        (kinds.LIST, "a,b", 'expected a list of texts, found the text "a,b"'),
        (kinds.LIST, [1], "expected a text (put it into quotes), found the number 1"),
        (kinds.URLS, ["http://localhost:1"], "expected a text (put it into quotes), found a list"),
        (kinds.EXTENSIONS, {}, "expected a list of {actor, options}"),
    ],
)
def test_file_values_of_the_wrong_type_say_what_was_found(kind: kinds.Kind[Any], value: object, rule: str) -> None:
    """The fault says what stands there, since YAML turns bare words into numbers and booleans unasked."""
    with pytest.raises(BadValue) as caught:
        kind.from_file(value)
    assert str(caught.value) == rule


def test_file_durations_are_nanoseconds_or_texts() -> None:
    """Etcd's files hold nanoseconds; nobody can read five billion, so a text is taken too."""
    assert kinds.DURATION_S.from_file(5_000_000_000) == 5.0
    assert kinds.DURATION_S.from_file("5s") == 5.0


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.setting.name)
def test_defaults_survive_being_written_and_read(declared: Any) -> None:
    """A default that help or the sample shows means the same when somebody sets it."""
    setting = declared.setting
    assert setting.kind.from_file(setting.kind.to_file(setting.default)) == setting.default
    if setting.flag:
        assert setting.kind.from_text(setting.kind.to_text(setting.default)) == setting.default


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
        ("", "URL scheme must be http, https, unix, or unixs: "),
        ("ftp://localhost:1", "URL scheme must be http, https, unix, or unixs: ftp://localhost:1"),
        ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
        ("http://localhost", 'URL address does not have the form "host:port": http://localhost'),
        ("http://localhost:x", 'URL address does not have the form "host:port": http://localhost:x'),
        ("http://localhost:65536", 'URL address does not have the form "host:port": http://localhost:65536'),
        ("http://::1:2379", 'URL address does not have the form "host:port": http://::1:2379'),
        ("http://localhost:2379/v3", "URL must not contain a path: http://localhost:2379/v3"),
        ("http://localhost:2379/", "URL must not contain a path: http://localhost:2379/"),
    ],
)
def test_bad_urls_name_etcds_rule(text: str, rule: str) -> None:
    """The form of a URL is checked once, for all lists, in etcd's words."""
    with pytest.raises(BadValue) as caught:
        parse_url(text)
    assert str(caught.value) == rule


def test_url_parts() -> None:
    """Listeners need host and port, also of an IPv6 address and of a socket's path."""
    plain, v6, unix = parse_url(" http://localhost:0 "), parse_url("https://[::1]:2379"), parse_url("unix://d:1/x/y")
    assert (plain.text, plain.host, plain.port, plain.secure) == ("http://localhost:0", "localhost", 0, False)
    assert (v6.host, v6.port, v6.secure) == ("::1", 2379, True)
    assert (unix.host, unix.path, unix.is_unix) == ("d:1", "/x/y", True)


def test_url_lists_are_sorted_and_unique() -> None:
    """Etcd keeps a member's URLs sorted; member ids are computed from them in that order."""
    urls = parse_urls("http://localhost:2,http://localhost:1, http://localhost:2")
    assert [str(url) for url in urls] == ["http://localhost:1", "http://localhost:2"]


@given(st.text(max_size=30), st.sampled_from(["", *(scheme + "://" for scheme in SCHEMES)]))
def test_any_text_is_a_url_or_a_fault(text: str, prefix: str) -> None:
    """Nothing that an operator can type ends in another error than a fault."""
    with contextlib.suppress(BadValue):
        assert parse_url(prefix + text).text == (prefix + text).strip()


def test_initial_cluster_gathers_the_urls_of_a_name() -> None:
    """A name repeated adds a URL, as in etcd."""
    members = parse_initial_cluster("b=http://localhost:3,a=http://localhost:2,,a=http://localhost:1")
    assert [(member.name, [url.port for url in member.peer_urls]) for member in members] == [("a", [1, 2]), ("b", [3])]


def test_initial_cluster_needs_urls() -> None:
    """A name without a URL is a fault of the URL."""
    with pytest.raises(BadValue, match="URL scheme must be"):
        parse_initial_cluster("a")


def test_gates_hold_only_what_differs_from_the_defaults() -> None:
    """A stage switches what is not named itself, and a gate at its default asks for nothing."""
    assert kinds.GATES.from_text("TxnModeWriteWithSharedBuffer=true,PriorityRequest=false") == ()
    switched = dict(kinds.GATES.from_text("AllAlpha=true,PriorityRequest=false,CompactHashCheck=false"))
    alpha = [gate for gate in GATES if gate.stage == "alpha" and gate.name != "PriorityRequest"]
    assert switched == {gate.name: True for gate in alpha if not gate.default} | {"CompactHashCheck": False}
