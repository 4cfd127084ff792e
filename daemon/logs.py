"""The log: lines as etcd writes them, from structlog and from the standard library's loggers alike.

Owns the line's shape (``level ts caller msg`` and then the fields; JSON, or tab-separated for a terminal), the outputs,
the level, and that nothing named password, token or value is ever written.  Knows no event: those are literals at their
call sites, listed in docs/log-events.md.  A level that is off costs one call of an empty method.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from config.rotation import parse_rotation
from daemon.log_journal import JournalStream
from daemon.log_rotation import RotatingFile

if TYPE_CHECKING:
    from types import FrameType

    from config.notes import Note
    from config.rotation import Rotation
    from config.schema import Logging

Fields = Mapping[str, Any]

NEWEST_MAX = 500

_REDACTED = "<redacted>"
_SECRET_NAMES = ("password", "token", "value", "passwords", "tokens", "values")
_NUMBER_OF_LEVEL = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
_LEVEL_OF_METHOD = {
    "debug": "debug",
    "info": "info",
    "warning": "warn",
    "warn": "warn",
    "error": "error",
    "exception": "error",
    "critical": "fatal",
    "fatal": "fatal",
}
_LEVEL_OF_NUMBER = (
    (logging.CRITICAL, "fatal"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warn"),
    (logging.INFO, "info"),
)
_NOT_CALLERS = ("structlog", "logging", __name__)


class LogStream(Protocol):
    """Where lines go.  Each line is written by one call."""

    def write(self, line: bytes, /) -> object:
        """Write *line*."""

    def flush(self) -> object:
        """Pass it on."""

    def isatty(self) -> bool:
        """Whether a person reads along."""


def open_stream(output: str, rotation: Rotation | None = None) -> LogStream:
    """Return the stream of one of --log-outputs; raises OSError where a file, or the journal, cannot be opened."""
    if output == "stdout":
        return sys.stdout.buffer
    if output in {"stderr", "default"}:
        return sys.stderr.buffer
    if output == "systemd/journal":
        return JournalStream()
    return Path(output).open("ab") if rotation is None else RotatingFile(Path(output), rotation, now)


def now() -> datetime:
    """Return the local time with its zone."""
    return datetime.now().astimezone()


def make_logger(
    settings: Logging,
    stream_factory: Callable[[str, Rotation | None], LogStream] = open_stream,
    clock: Callable[[], datetime] = now,
) -> structlog.stdlib.BoundLogger:
    """Return the logger that *settings* ask for; raises OSError where an output cannot be opened.

    It may be used from every thread.
    """
    silent = "/dev/null" in settings.log_outputs  # as in etcd: it silences the other outputs too
    rotation = parse_rotation(settings.log_rotation_config_json) if settings.enable_log_rotation else None
    streams = () if silent else tuple(stream_factory(output, rotation) for output in settings.log_outputs)
    for_people = bool(streams) and all(stream.isatty() for stream in streams)
    console = settings.log_format == "console" or (settings.log_format == "" and for_people)
    level = logging.CRITICAL if silent else _NUMBER_OF_LEVEL[settings.log_level]
    # The level's methods come from structlog's filtering class, the type that call sites name from its stdlib class.
    bases = (structlog.make_filtering_bound_logger(level), structlog.stdlib.BoundLogger)
    levelled: type[structlog.stdlib.BoundLogger] = type("LevelledLogger", bases, {})
    newest = _Newest(clock)
    levelled.newest = newest  # type: ignore[attr-defined]  # see newest_lines
    processors: list[structlog.typing.Processor] = [_Shape(clock), newest, _render_console if console else _render_json]
    return levelled(_Lines(streams), processors=processors, context={})


def newest_lines(log: structlog.stdlib.BoundLogger) -> tuple[tuple[float, Fields], ...]:
    """Return the newest lines that *log* and all bound from it have written, oldest first, with Unix times."""
    newest: _Newest = type(log).newest  # type: ignore[attr-defined]  # all of them are of the class that make_logger made
    return tuple(newest.lines)


def route_standard_library(log: structlog.stdlib.BoundLogger, settings: Logging) -> logging.Handler:
    """Send what Pykka, asyncio, grpc and others log to *log*; returns the handler, now the root logger's only one."""
    handler = _Routed(log)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_NUMBER_OF_LEVEL[settings.log_level])
    return handler


def write_notes(log: structlog.stdlib.BoundLogger, notes: Iterable[Note]) -> None:
    """Log what was noticed before there was a logger."""
    for note in notes:
        write = log.warning if note.level == "warning" else log.info
        write(note.text, **note.fields)


class _Lines:
    """Writes finished lines to all streams, one at a time."""

    def __init__(self, streams: tuple[LogStream, ...]) -> None:
        self._streams = streams
        self._lock = threading.Lock()

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            for stream in self._streams:
                # A full disk or a closed pipe takes the log away, never the store; there is nowhere left to say so.
                with contextlib.suppress(OSError, ValueError):
                    stream.write(data)
                    stream.flush()

    debug = info = warning = warn = error = exception = critical = fatal = _write


class _Shape:
    """Turns what a call site gave into etcd's keys in etcd's order."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> dict[str, Any]:
        event.pop("positional_args", None)
        line: dict[str, Any] = {
            "level": event.pop("_level", None) or _LEVEL_OF_METHOD[method],
            "ts": _timestamp(self._clock()),
            "caller": event.pop("_caller", None) or _caller(),
            "msg": str(event.pop("event", "")),
        }
        failure = event.pop("exc_info", None)
        event.pop("stack_info", None)
        for key, value in event.items():
            line[f"{key}_" if key in line else key] = _plain(key, value)
        if failure:
            error = sys.exc_info()[1] if failure is True else failure[1] if isinstance(failure, tuple) else failure
            if isinstance(error, BaseException):
                line.setdefault("error", _describe(error))
                line["stacktrace"] = "".join(traceback.format_exception(error)).rstrip()
        return line


class _Newest:
    """Keeps the newest lines for whoever looks from inside."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.lines: deque[tuple[float, Fields]] = deque(maxlen=NEWEST_MAX)

    def __call__(self, _logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        self.lines.append((self._clock().timestamp(), line))
        return line


def _render_json(_logger: object, _method: str, line: Fields) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _render_console(_logger: object, _method: str, line: Fields) -> str:
    fields = {key: value for key, value in line.items() if key not in {"level", "ts", "caller", "msg", "stacktrace"}}
    columns = [line["ts"], line["level"], line["caller"], line["msg"].replace("\n", "\\n")]
    if fields:
        columns.append(json.dumps(fields, ensure_ascii=False))
    stacktrace = f"\n{line['stacktrace']}" if "stacktrace" in line else ""
    return "\t".join(columns) + stacktrace + "\n"


def _timestamp(moment: datetime) -> str:
    zone = moment.strftime("%z")
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + ("Z" if zone in {"+0000", ""} else zone)


def _caller() -> str:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to learn who called
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_NOT_CALLERS):
        frame = frame.f_back
    return "" if frame is None else _place(frame.f_code.co_filename, frame.f_lineno)


def _place(path: str, line: int) -> str:
    return f"{'/'.join(Path(path).parts[-2:])}:{line}"


def _plain(key: str, value: Any) -> Any:  # noqa: ANN401 - whatever a call site logs
    """Return *value* as JSON can hold it, without anything that is secret by its name."""
    if key.lower().endswith(_SECRET_NAMES) and value is not None:
        return _REDACTED
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case BaseException():
            return _describe(value)
        case Mapping():
            return {str(name): _plain(str(name), each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(key, each) for each in value]
        case AbstractSet():
            return sorted(str(each) for each in value)
        case _:
            return str(value)


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _Routed(logging.Handler):
    """Passes the standard library's records to our logger."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)  # its arguments do not fit; the library's own text still tells most
        level = next((name for number, name in _LEVEL_OF_NUMBER if record.levelno >= number), "debug")
        write = getattr(self._log, "warning" if level == "warn" else level)
        write(
            message,
            logger=record.name,
            exc_info=record.exc_info,
            _caller=_place(record.pathname, record.lineno),
        )
