"""The log's lines, outputs and levels, and that secrets stay out of it."""

from __future__ import annotations

import io
import json
import logging
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from config.notes import Note
from config.schema import Logging
from daemon.logs import make_logger, open_stream, route_standard_library, write_notes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import structlog

MOMENT = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


class Terminal(io.BytesIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


class Broken(io.BytesIO):
    """A stream whose disk is full."""

    def write(self, line: Any, /) -> int:
        raise OSError(28, "No space left on device")


def logger_on(stream: io.BytesIO, *, now: datetime = MOMENT, **settings: Any) -> structlog.stdlib.BoundLogger:
    return make_logger(Logging(**settings), lambda _output, _rotation: stream, lambda: now)


def lines_of(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def lose() -> None:
    raise KeyError("lost")


def test_a_line_has_etcds_keys_in_etcds_order() -> None:
    """Collectors and people know these four keys; microseconds, and Z for UTC."""
    stream = io.BytesIO()
    logger_on(stream).info("became leader", term=3)
    line = stream.getvalue().decode()
    assert list(json.loads(line)) == ["level", "ts", "caller", "msg", "term"]
    assert line.startswith('{"level":"info","ts":"2026-03-04T05:06:07.000089Z","caller":"unit/test_logs.py:')
    assert line.endswith(',"msg":"became leader","term":3}\n')


def test_other_zones_show_their_offset() -> None:
    """Etcd writes local time; the offset makes it a moment."""
    stream = io.BytesIO()
    logger_on(stream, now=MOMENT.astimezone(timezone(timedelta(hours=2)))).info("x")
    assert lines_of(stream)[0]["ts"] == "2026-03-04T07:06:07.000089+0200"


def test_levels_have_etcds_names() -> None:
    """Zap says warn and fatal where Python says warning and critical."""
    stream = io.BytesIO()
    log = logger_on(stream, log_level="debug")
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(log, method)("x")
    assert [line["level"] for line in lines_of(stream)] == ["debug", "info", "warn", "error", "fatal"]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warn", "error", "fatal"]),
        ("info", ["info", "warn", "error", "fatal"]),
        ("warn", ["warn", "error", "fatal"]),
        ("error", ["error", "fatal"]),
        ("dpanic", ["fatal"]),
        ("panic", ["fatal"]),
        ("fatal", ["fatal"]),
    ],
)
def test_lesser_levels_are_off(level: str, written: list[str]) -> None:
    """--log-level names the least level that is written."""
    stream = io.BytesIO()
    log = logger_on(stream, log_level=level)
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(log, method)("x")
    assert [line["level"] for line in lines_of(stream)] == written


def test_bound_fields_stand_in_every_line() -> None:
    """An actor binds its member id once."""
    stream = io.BytesIO()
    log = logger_on(stream).bind(member_id="8e9e05c52164694d")
    log.info("a")
    log.warning("b", term=1)
    assert [line["member_id"] for line in lines_of(stream)] == ["8e9e05c52164694d"] * 2


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("password", "hunter2", "<redacted>"),
        ("auth_token", "abc", "<redacted>"),
        ("Value", b"abc", "<redacted>"),
        ("prev_value", "abc", "<redacted>"),
        ("request", {"user": "root", "password": "hunter2"}, {"user": "root", "password": "<redacted>"}),
        ("kvs", [{"key": "a", "value": "b"}], [{"key": "a", "value": "<redacted>"}]),
        ("tokens", ["a"], "<redacted>"),
        ("token", None, None),
        ("value_size_bytes", 7, 7),
    ],
)
def test_secrets_are_redacted(key: str, value: object, shown: object) -> None:
    """Passwords, tokens and users' values never reach a log, wherever they are nested."""
    stream = io.BytesIO()
    logger_on(stream).info("x", **{key: value})
    assert lines_of(stream)[0][key] == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (float("nan"), "nan"),
        (b"\xff", "\\xff"),
        ("\ud800", "\ud800"),
        (OSError("disk"), "disk"),
        (OSError(), "OSError"),
        ({3: {2, 1}}, {"3": ["1", "2"]}),
        ((1, None, True), [1, None, True]),
        (MOMENT, str(MOMENT)),
    ],
)
def test_any_field_becomes_json(given: object, shown: object) -> None:
    """A log line is always a line of JSON: no field can break it."""
    stream = io.BytesIO()
    logger_on(stream).info("x", field=given)
    assert lines_of(stream)[0]["field"] == shown


def test_fields_cannot_hide_etcds_keys() -> None:
    """A field called like one of the four gets another name instead of replacing it."""
    stream = io.BytesIO()
    logger_on(stream).info("x", msg="y", level="z")
    assert lines_of(stream)[0] | {"msg": "x", "msg_": "y", "level": "info", "level_": "z"} == lines_of(stream)[0]


def test_exceptions_bring_error_and_stack() -> None:
    """What crashed an actor can be read from its last line."""
    stream = io.BytesIO()
    log = logger_on(stream)
    try:
        lose()
    except KeyError as error:
        log.exception("crashed")
        log.critical("again", exc_info=error)
    for line in lines_of(stream):
        assert line["error"] == "'lost'"
        assert line["stacktrace"].endswith("KeyError: 'lost'")


def test_console_lines_are_tab_separated() -> None:
    """What etcd writes with --log-format=console."""
    stream = io.BytesIO()
    logger_on(stream, log_format="console").info("two\nlines", term=3)
    columns = stream.getvalue().decode().rstrip("\n").split("\t")
    assert columns[:2] == ["2026-03-04T05:06:07.000089Z", "info"]
    assert columns[2].startswith("unit/test_logs.py:")
    assert columns[3:] == ["two\\nlines", '{"term": 3}']


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"), [("", Terminal(), False), ("json", Terminal(), True), ("", io.BytesIO(), True)]
)
def test_format_follows_the_terminal_unless_given(log_format: str, stream: io.BytesIO, is_json: bool) -> None:
    """People get columns, collectors JSON."""
    logger_on(stream, log_format=log_format).info("x")
    assert stream.getvalue().startswith(b"{") is is_json


def test_every_output_gets_every_line() -> None:
    """Several outputs are written alike, and one that fails takes nothing from the others."""
    streams = {"stderr": io.BytesIO(), "full": Broken(), "/var/log/x": io.BytesIO()}
    log = make_logger(Logging(log_outputs=tuple(streams)), lambda output, _: streams[output], lambda: MOMENT)
    log.info("x")
    assert streams["stderr"].getvalue() == streams["/var/log/x"].getvalue() != b""


def test_dev_null_silences_everything() -> None:
    """As in etcd, /dev/null among the outputs switches the log off; the others are not even opened."""

    def refuse(output: str, _rotation: object) -> io.BytesIO:
        raise AssertionError(output)

    make_logger(Logging(log_outputs=("/dev/null", "stderr")), refuse).critical("x")


def test_files_are_appended_to(tmp_path: Path) -> None:
    """A restart keeps the log of the time before."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    stream = open_stream(str(path))
    make_logger(Logging(log_outputs=(str(path),)), lambda _output, _rotation: stream).info("after")
    assert path.read_bytes().startswith(b"before\n{")
    stream.close()  # type: ignore[attr-defined]  # a file, though the port cannot close


def test_a_file_that_cannot_be_opened_is_the_callers_to_report(tmp_path: Path) -> None:
    """There is no log yet that could tell."""
    with pytest.raises(OSError, match="No such file or directory"):
        open_stream(str(tmp_path / "none" / "log"))


def test_lines_of_many_threads_do_not_mix() -> None:
    """Every actor has a thread, and all share the log."""
    stream = io.BytesIO()
    log = logger_on(stream)
    threads = [threading.Thread(target=lambda: [log.info("x" * 50) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line["msg"] for line in lines_of(stream)} == {"x" * 50}
    assert len(lines_of(stream)) == 200


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_the_standard_library_logs_here_too() -> None:
    """Pykka, asyncio and grpc have loggers of their own; their lines look like ours and name their source."""
    stream = io.BytesIO()
    route_standard_library(logger_on(stream), Logging())
    library = logging.getLogger("pykka")
    library.debug("off")
    library.warning("Unhandled %s", "exception")
    library.warning("does not fit %d", "x")
    try:
        lose()
    except KeyError:
        library.exception("crashed")
    first, second, third = lines_of(stream)
    assert (first["level"], first["msg"], first["logger"]) == ("warn", "Unhandled exception", "pykka")
    assert first["caller"].startswith("unit/test_logs.py:")
    assert second["msg"] == "does not fit %d"
    assert (third["level"], third["error"]) == ("error", "'lost'")


def test_notes_of_the_configuration_are_written() -> None:
    """What was noticed before there was a log is not lost."""
    stream = io.BytesIO()
    write_notes(logger_on(stream), [Note("info", "a"), Note("warning", "b", {"key": "c"})])
    assert [(line["level"], line["msg"], line.get("key")) for line in lines_of(stream)] == [
        ("info", "a", None),
        ("warn", "b", "c"),
    ]
