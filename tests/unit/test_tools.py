"""What all tools share: their command lines, help, completion and progress; and what they do without any server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from config.schema import DECLARED
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from core.raft.messages import NOBODY, Entry, EntryType, HardState
from core.types import Index, Term
from daemon.tools import programs
from daemon.tools.commands import (
    BadArguments,
    Command,
    Given,
    HelpWanted,
    Word,
    choice_option,
    duration_option,
    number_option,
    read,
    switch,
    text_option,
)
from daemon.tools.names import TOOL_NAMES
from daemon.tools.output import QUIET_S, Progress, progress_line, table
from daemon.tools.programs import EXIT_BAD_ARGUMENTS, EXIT_FAILED, TOOLS
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AuthUserAddRequest, PutRequest
from storage.leveldb import open_leveldb
from wal.codec import Metadata
from wal.filesystem import PosixFileSystem
from wal.log import WriteAheadLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = text_option("text", "a text", "nothing")
NUMBER = number_option("number", "a number")
WAIT = duration_option("wait", "a time", 2.0)
LOUD = switch("loud", "a switch")
HOW = choice_option("how", "a choice", ("simple", "json"), short="w")


def ignore(_given: Given) -> None:
    """Do nothing."""


WORDS = (Word("A", "first"), Word("B", "last", optional=True))
TOOL = Command("tool", "Do it.\n\nIn full.", ignore, WORDS, (TEXT, NUMBER, WAIT, LOUD, HOW))


def given(*arguments: str) -> Given:
    asked = read(TOOL, arguments)
    assert not isinstance(asked, HelpWanted)
    return asked[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "--text=t", "--number=7", "--wait=1m", "--loud", "-w", "json", "b"],
        ["-text", "t", "-number", "7", "--wait", "60s", "-loud=true", "--how=json", "a", "b"],
        ["--text", "t", "-w=json", "--loud=1", "a", "--number", "7", "--wait=60s", "--", "b"],
    ],
)
def test_flags_are_read_as_etcds_tools_read_them(arguments: list[str]) -> None:
    """Scripts made for etcdutl pass flags in all of these forms, before and behind the words."""
    read_ = given(*arguments)
    assert (read_.words, read_[TEXT], read_[NUMBER], read_[WAIT], read_[LOUD], read_[HOW]) == (
        ("a", "b"),
        "t",
        7,
        60.0,
        True,
        "json",
    )


def test_defaults() -> None:
    """What is not given has the default that the help names."""
    read_ = given("a")
    assert (read_.word(1), read_[TEXT], read_[NUMBER], read_[WAIT], read_[LOUD], read_[HOW]) == (
        "",
        "nothing",
        0,
        2.0,
        False,
        "simple",
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "'actcd tool' needs A [B], 0 given"),
        (["a", "b", "c"], "needs A [B], 3 given"),
        (["a", "--nope"], "unknown flag: --nope"),
        (["a", "--text"], "flag needs an argument: --text"),
        (["a", "--number=-1"], 'invalid argument "-1" for "--number" flag: a whole number is needed'),
        (["a", "--number=²"], "a whole number is needed"),
        (["a", "--wait=soon"], 'invalid argument "soon" for "--wait" flag'),
        (["a", "--loud=perhaps"], "true or false is needed"),
        (["a", "-w", "xml"], "expected one of simple, json"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: list[str], text: str) -> None:
    """A flag that is misread would do another thing than was meant; each refusal says which and why."""
    with pytest.raises(BadArguments) as refused:
        read(TOOL, arguments)
    assert text in str(refused.value)


def walk(command: Command, path: str) -> Iterator[tuple[Command, list[str]]]:
    """Return *command* and all below it, each with the words that reach it."""
    yield command, path.split()
    for each in command.commands:
        yield from walk(each, f"{path} {each.name}")


def test_every_tool_is_known_by_its_name() -> None:
    """The command line knows the names without loading the tools."""
    assert TOOLS.keys() == TOOL_NAMES


@pytest.mark.parametrize("name", list(TOOLS))
def test_help_names_every_flag_and_word(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help is all that an operator has at hand in the night; it exits 0, and shows examples."""
    for command, words in walk(TOOLS[name], name):
        assert programs.run(TOOLS[name], [*words[1:], "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: actcd {' '.join(words)}")
        assert all(option.spelled() in text and option.meaning[:30] in text for option in command.options)
        assert all(word.name in text for word in command.words)
        assert all(each.name in text for each in command.commands)
        assert command.commands or "Examples:" in text


@pytest.mark.parametrize("name", list(TOOLS))
def test_a_tool_without_words_says_what_it_needs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is done by a name alone, and the exit code is etcdctl's for bad arguments."""
    assert programs.run(TOOLS[name], []) == EXIT_BAD_ARGUMENTS
    assert "needed" in (text := capsys.readouterr().err) or "needs" in text or "not set" in text


def completion(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert programs.run(TOOLS["completion"], [shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["snap"], {"snapshot"}),
        (["snapshot", ""], {"save", "status", "restore"}),
        (["snapshot", "status", "x", "--write-out", "j"], {"json"}),
        (["snapshot", "status", "x", "--write-out", "=", "ta"], {"table"}),
        (["dump-log", "--wal"], {"--wal-dir"}),
        (["--listen-client-u"], {"--listen-client-urls"}),
        (["completion", "b"], {"bash"}),
        (["gateway", "st"], {"start"}),
        (["gateway", "start", "--ret"], {"--retry-delay"}),
        (["grpc-proxy", "start", "--tls-min-version", ""], {"TLS1.2", "TLS1.3"}),
        (["help", "gat"], {"gateway"}),
        (["--initial-cluster-state", "e"], {"existing"}),
    ],
)
def test_bash_completes(line: list[str], expected: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The script is run by a real bash: it offers commands, flags and values where they belong."""
    words = " ".join(f"'{word}'" for word in ("actcd", *line))
    program = f"{completion('bash', capsys)}\nCOMP_WORDS=({words}); COMP_CWORD={len(line)}; _actcd\n"
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd="/", timeout=20)
    assert done.stderr == ""
    assert expected <= set(done.stdout.split()) <= expected | {"--help"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_their_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command and flag is in the script, and a shell that is installed finds no fault in it."""
    script = completion(shell, capsys)
    dashes = "-l " if shell == "fish" else "--"
    for declared in DECLARED:
        setting = declared.setting
        assert (f"{dashes}{setting.name}" in script) == setting.flag, setting
    for tool in TOOLS.values():
        for command, words in walk(tool, tool.name):
            assert " ".join(words) in script
            assert all(f"{dashes}{option.name}" in script for option in command.options)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


class FakeTerminal:
    """A terminal that remembers."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.text = ""
        self._is_terminal = is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(is_terminal: bool) -> None:
    """A person sees a line that moves and is gone at the end; a log file or a pipe sees nothing."""
    now_s = [0.0]
    terminal = FakeTerminal(is_terminal=is_terminal)
    with Progress(terminal, lambda: now_s[0]) as progress:
        progress("records", 5)
        assert terminal.text == "", "what is over at once shows nothing"
        now_s[0] += QUIET_S
        progress("records", 500)
        progress("records", 501)
    assert terminal.text == ("\r\x1b[K500 records, 1,000/s\r\x1b[K" if is_terminal else "")


def test_a_bar_where_the_end_is_known() -> None:
    """How much, how fast, and how long still."""
    assert progress_line("bytes", 250_000, 1_000_000, 0.5) == (
        "[#######.......................]  25%  250 kB, 500 kB/s, 2 s left"
    )
    assert progress_line("bytes", 2_000_000, 1_000_000, 0.5).startswith("[##############################] 100%")


def test_tables_are_etcdctls() -> None:
    """Scripts cut these columns."""
    assert table(("A", "LONG"), [("1", "2"), ("345", "x")], left=(1,)) == (
        "+-----+------+\n|  A  | LONG |\n+-----+------+\n|   1 | 2    |\n| 345 | x    |\n+-----+------+"
    )


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A data directory with one put and one user in the log, the put applied."""
    data_dir = tmp_path / "data"
    (data_dir / "member" / "snap").mkdir(parents=True)
    requests = [
        InternalRaftRequest(put=PutRequest(key=b"ke\ny", value=b"hush")),
        InternalRaftRequest(auth_user_add=AuthUserAddRequest(name="u", password="hush", hashedPassword="hush")),
    ]
    wal = WriteAheadLog.create(data_dir / "member" / "wal", PosixFileSystem(), Metadata(NOBODY, 7))
    entries = [
        Entry(Term(1), Index(number), EntryType.NORMAL, request.SerializeToString())
        for number, request in enumerate(requests, 1)
    ]
    wal.append(entries, HardState(Term(1), NOBODY, Index(2)))
    wal.close()
    with closing(open_leveldb(data_dir / "member" / "db")) as backend:
        store = Store.open(backend)
        transaction = store.transaction()
        transaction.put(b"ke\ny", b"hush")
        transaction.end()
        store.advance(2, 1)
        store.flush(sync=True)
    return data_dir


@pytest.mark.parametrize("how", ["simple", "json", "table"])
def test_values_and_secrets_stay_out_of_a_dump(member: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A dump is mailed around: no value is in it unless asked for, no password ever; a key breaks no line."""
    assert programs.run(TOOLS["dump-log"], [str(member), "-w", how]) == 0
    assert programs.run(TOOLS["dump-db"], ["iterate-bucket", str(member), "key", "-w", how]) == 0
    shown = capsys.readouterr().out
    assert "hush" not in shown
    assert "aHVzaA==" not in shown
    assert ("a2UKeQ==" if how == "json" else "ke\\ny") in shown
    assert programs.run(TOOLS["dump-log"], [str(member), "-w", how, "--values"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("aHVzaA==" if how == "json" else "hush") == 1
    assert shown.count("<hidden>") == 2


@pytest.mark.parametrize(
    ("arguments", "count"), [(["--start-index=2"], 1), (["--end-index=2"], 1), (["--entry-type=put,txn"], 1), ([], 2)]
)
def test_a_part_of_the_log(member: Path, arguments: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Logs are long; ranges and kinds make them readable."""
    assert programs.run(TOOLS["dump-log"], [str(member), *arguments]) == 0
    assert f"{count} entries shown, of 2" in capsys.readouterr().out


def test_a_broken_pipe_is_no_failure(member: Path) -> None:
    """`actcd dump-log X | head -1` ends quietly."""
    command = f"{sys.executable} -m daemon dump-log {member} --raw | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=30)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def storage_version(member: Path) -> bytes | None:
    with closing(open_leveldb(member / "member" / "db")) as backend:
        return Store.open(backend).bucket_get(Bucket.META, b"storageVersion")


def test_the_storage_version_goes_up_and_down(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As etcdutl migrate: 3.6 and later note it, 3.5 does not; an unknown version is refused, with --force taken."""

    def migrate(version: str, *more: str) -> int:
        return programs.run(TOOLS["migrate"], [f"--data-dir={member}", f"--target-version={version}", *more])

    assert migrate("3.5") == 0
    assert capsys.readouterr().out == "storage version up-to-date: 3.5\n"
    assert migrate("3.7") == 0
    assert storage_version(member) == b"3.7.0"
    assert migrate("3.5") == 0
    assert storage_version(member) is None
    capsys.readouterr()
    assert migrate("3.9") == EXIT_FAILED
    assert 'version "3.9.0" is not supported' in capsys.readouterr().err
    assert migrate("3.9", "--force") == 0
    assert storage_version(member) == b"3.9.0"


def test_a_newer_log_forbids_the_way_down(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An older member would not understand what the log asks of it, and so would differ from the others."""
    wal, replay = WriteAheadLog.open(member / "member" / "wal", PosixFileSystem(), (Index(0), Term(0)))
    newer = b"\xe2\xea\x04\x02\x0a\x00"  # field 9900, which etcd has since 3.6
    wal.append([Entry(Term(1), Index(len(replay.entries) + 1), EntryType.NORMAL, newer)], None)
    wal.close()
    assert programs.run(TOOLS["migrate"], [f"--data-dir={member}", "--target-version=3.6"]) == 0
    assert programs.run(TOOLS["migrate"], [f"--data-dir={member}", "--target-version=3.5"]) == EXIT_FAILED
    assert "WAL contains newer entries" in capsys.readouterr().err
    assert storage_version(member) == b"3.6.0"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--target-version=3"], 'wrong target version format, expected "X.Y", got "3"'),
        (["--target-version=3.4"], 'target version "3.4" not supported. Minimal "3.5"'),
        ([], "one of --target-version and --to is needed"),
        (["--to=etcd"], "--to and --output-dir go together"),
    ],
)
def test_what_migrate_does_not_take(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentences are etcdutl's, and come before anything is opened."""
    assert programs.run(TOOLS["migrate"], ["--data-dir=nowhere", *arguments]) == EXIT_BAD_ARGUMENTS
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["hashkv", "{}"],
        ["dump-log", "{}"],
        ["dump-db", "list-bucket", "{}"],
        ["dump-db", "hash", "{}"],
        ["defrag", "--data-dir={}"],
        ["migrate", "--data-dir={}", "--target-version=3.6"],
        ["migrate", "--data-dir={}", "--to=actcd", "--output-dir={}.new"],
        ["snapshot", "status", "{}/none"],
    ],
)
def test_what_is_no_data_is_refused_and_left_alone(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped path must neither be filled nor fail with a traceback."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "precious").write_text("x")
    for path in (folder, tmp_path / "missing"):
        words = [word.format(path) for word in arguments]
        assert programs.run(TOOLS[words[0]], words[1:]) == EXIT_FAILED
        assert capsys.readouterr().err.startswith("Error: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["other", "precious"]


def test_an_etcds_data_is_not_defragmented_but_told_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file is of another kind; etcd's own tool is at hand where etcd's data is."""
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "snap" / "db").write_bytes(b"bbolt")
    assert programs.run(TOOLS["defrag"], [f"--data-dir={tmp_path}"]) == EXIT_FAILED
    told = capsys.readouterr().err
    assert f"is etcd's: its store is the bbolt file {tmp_path}/member/snap/db" in told
    assert f"use 'etcdutl defrag --data-dir {tmp_path}'" in told
    assert (tmp_path / "member" / "snap" / "db").read_bytes() == b"bbolt"
