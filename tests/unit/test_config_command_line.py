"""From words to what the program shall do: programs, help, version, check-config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from config.load import Machine
from config.schema import DECLARED
from daemon.command_line import (
    CheckConfig,
    Refused,
    RunGateway,
    RunGrpcProxy,
    RunOldProxy,
    RunServer,
    RunTool,
    ShowHelp,
    ShowVersion,
    check_config,
    parse,
)
from daemon.machine import THIS_MACHINE, resolve
from tests.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.command_line import Report

MACHINE = Machine(read_text=lambda _path: "", default_host=lambda: None)


def test_no_words_start_a_server_with_the_defaults() -> None:
    """``actcd`` alone runs, as etcd does."""
    command = parse([], {}, MACHINE)
    assert isinstance(command, RunServer)
    assert command.config.member.data_dir == "default.etcd"
    assert len(command.notes) == 2


@pytest.mark.parametrize("arguments", [["--version"], ["-version"], ["--version=true"], ["--version", "--name=a"]])
def test_version(arguments: list[str]) -> None:
    """The version is printed even beside other flags."""
    assert parse(arguments, {}, MACHINE) == ShowVersion()


def test_version_needs_a_sound_command_line() -> None:
    """As in etcd, flags that cannot be read come first; and --version=false asks for nothing."""
    assert isinstance(parse(["--version", "--nope"], {}, MACHINE), Refused)
    assert isinstance(parse(["--version=false"], {}, MACHINE), RunServer)


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["--name=a", "-help"]])
def test_help_names_every_flag(arguments: list[str]) -> None:
    """Help comes from the schema: every flag is there with its default."""
    command = parse(arguments, {}, MACHINE)
    assert isinstance(command, ShowHelp)
    for setting in (each.setting for each in DECLARED if each.setting.flag):
        entry = f"  --{setting.name} '{setting.default_text}'\n    {setting.meaning}"
        assert f"{entry}\n" in command.text
    assert re.findall(r"^(\w[^\n]*):$", command.text, re.MULTILINE) == [
        "Usage",
        "Member",
        "Clustering",
        "Security",
        "Auth",
        "Profiling and Monitoring",
        "Logging",
        "Distributed tracing",
        "Features",
        "Unsafe feature",
        "Beyond etcd",
        "Other",
    ]


def test_the_grpc_proxy_reads_its_own_flags() -> None:
    """They are not the member's, so the member's rules must not judge them."""
    assert parse(["grpc-proxy", "start", "--listen-addr", "x"], {}, MACHINE) == RunGrpcProxy(
        ("start", "--listen-addr", "x")
    )


@pytest.mark.parametrize(
    ("text", "proxy"), [("proxy: on", "on"), ("proxy: 'on'", "on"), ("proxy: readonly", "readonly"), ("proxy: off", "")]
)
def test_old_proxies_are_led_to_the_grpc_proxy(text: str, proxy: str) -> None:
    """Their files say on and off, which YAML takes for booleans; started as a member one would be something else."""
    machine = Machine(read_text=lambda _path: text, default_host=lambda: None)
    command = parse(["--config-file=f"], {}, machine)
    if proxy:
        assert isinstance(command, RunOldProxy)
        assert command.config.own.proxy == proxy
        assert any("the gRPC proxy runs in its place" in note.text for note in command.notes)
    else:
        assert isinstance(command, RunServer)


def test_unreadable_flags_get_the_usage() -> None:
    """Exit code 2 with the usage below the faults, as Go programs do; other refusals are told without it."""
    unreadable, senseless = parse(["--nope"], {}, MACHINE), parse(["--logger=x"], {}, MACHINE)
    assert isinstance(unreadable, Refused)
    assert isinstance(senseless, Refused)
    assert (unreadable.exit_code, unreadable.lines[:2]) == (2, ("flag provided but not defined: -nope", "Usage:"))
    assert (senseless.exit_code, senseless.lines) == (1, ('unknown logger option "x"',))


def test_words_that_people_try() -> None:
    """`help` and `version` are what other programs take; whoever mistypes a command is told where they are listed."""
    assert parse(["help"], {}, MACHINE) == parse(["--help"], {}, MACHINE)
    assert parse(["version"], {}, MACHINE) == ShowVersion()
    assert parse(["help", "hashkv"], {}, MACHINE) == RunTool("hashkv", ("--help",))
    assert parse(["help", "gateway"], {}, MACHINE) == RunGateway(("--help",))
    assert isinstance(parse(["help", "check-config"], {}, MACHINE), ShowHelp)
    assert isinstance(parse(["help"] * 10_000, {}, MACHINE), ShowHelp)
    mistyped = parse(["hashkw"], {}, MACHINE)
    assert isinstance(mistyped, Refused)
    assert mistyped.lines == ('"hashkw" is not a valid flag', "'actcd --help' names the commands and flags")


@pytest.mark.parametrize("rest", [[], ["a", "b"], ["--config-file"]])
def test_check_config_wants_one_file(rest: list[str]) -> None:
    """Anything else is a usage fault."""
    command = parse(["check-config", *rest], {}, MACHINE)
    assert command == Refused(2, ("usage: actcd check-config FILE",))


def check(tmp_path: Path, text: str) -> tuple[int, list[str]]:
    file = tmp_path / "actcd.yaml"
    file.write_text(text.replace("HERE", str(tmp_path / "data")), encoding="utf-8")
    assert parse(["check-config", str(file)], {}) == CheckConfig(str(file))
    report = check_config(CheckConfig(str(file)))
    return report.exit_code, [line.replace(str(tmp_path), "TMP") for line in report.lines]


def test_check_config_accepts(tmp_path: Path) -> None:
    """A sound file is said to be one; unknown keys are listed; nothing is created."""
    assert check(tmp_path, "name: a\ndata-dir: HERE\nmax-walz: 3\n") == (
        0,
        [
            "warning: ignored an unknown key in the file (key=max-walz, nearest=max-wals)",
            "TMP/actcd.yaml: the configuration can be used",
        ],
    )
    assert not (tmp_path / "data").exists()


def test_check_config_lists_every_fault(tmp_path: Path) -> None:
    """All at once, each on a line of its own, with exit code 1."""
    assert check(tmp_path, "name: a\ndata-dir: HERE\nheartbeat-interval: 0\nlog-level: loud\n") == (
        1,
        [
            "error: --heartbeat-interval must be >0 (set to 0ms)",
            'error: log-level=loud: unrecognized level: "loud"',
        ],
    )


def test_check_config_looks_at_the_data_directory(tmp_path: Path) -> None:
    """The initial cluster matters only while there is no data, and a foreign directory can never be used."""
    text = "name: a\ndata-dir: HERE\ninitial-cluster: b=http://localhost:2380\n"
    fault = 'error: couldn\'t find local name "a" in the initial cluster configuration'
    assert check(tmp_path, text) == (1, [fault])
    (tmp_path / "data" / "member").mkdir(parents=True)
    assert check(tmp_path, text)[0] == 0
    (tmp_path / "data" / "proxy").mkdir()
    assert check(tmp_path, text) == (
        1,
        ["error: invalid datadir; both member and proxy directories exist: TMP/data"],
    )


def test_check_config_opens_the_certificates(tmp_path: Path) -> None:
    """A pair that does not fit is found before the restart that would need it."""
    authority = Authority(tmp_path)
    server, other = authority.issue("server"), authority.issue("other")
    config = tmp_path / "config.yaml"

    def report(key: Path) -> Report:
        section = f"{{cert-file: {server.pem}, key-file: {key}}}"
        config.write_text(f"data-dir: {tmp_path}/new\nname: a\nclient-transport-security: {section}\n")
        return check_config(CheckConfig(str(config)))

    assert report(server.key).exit_code == 0
    refused = report(other.key)
    assert refused.exit_code == 1
    assert f"cannot use the certificate {server.pem} with the key {other.key}" in refused.lines[0]


def test_check_config_of_a_missing_file(tmp_path: Path) -> None:
    """The operator learns which file and why."""
    report = check_config(CheckConfig(str(tmp_path / "none")))
    assert report.exit_code == 1
    assert report.lines[0].endswith(f"open {tmp_path / 'none'}: no such file or directory")


def test_this_machine() -> None:
    """The real machine resolves localhost, and its own address, if it has one, is not the loopback's."""
    assert resolve("127.0.0.1") == "127.0.0.1"
    assert not (THIS_MACHINE.default_host() or "").startswith("127.")
