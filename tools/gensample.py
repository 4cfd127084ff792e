"""Generate config/actcd.sample.yaml from the schema, or check that it is fresh.

``python tools/gensample.py`` writes it; ``--check`` compares with what is there and exits 1 on drift.
"""

from __future__ import annotations

import sys
import textwrap
from itertools import groupby
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from config.kinds import DURATION_S  # noqa: E402 - needs the path above
from config.schema import DECLARED, Declared  # noqa: E402 - needs the path above

SAMPLE = ROOT / "config" / "actcd.sample.yaml"
WIDTH = 116
HEAD = """\
# Every setting of actcd that a file can hold, with its meaning and its default.
#
# To set one, remove the '#' that stands directly before its key. Where keys stand in an object, remove the one before
# the object's name as well. Start with: actcd --config-file FILE, after checking it with: actcd check-config FILE.
#
# Once a file is given, all flags and environment variables are ignored. Lists of URLs are one text with commas.
# Durations are whole nanoseconds as in etcd; actcd takes texts such as 5s as well.
"""


def sample() -> str:
    """Return the text of the sample file."""
    in_file = [declared for declared in DECLARED if declared.setting.file_path]
    parts = [HEAD]
    for title, group in groupby(in_file, key=lambda declared: declared.title):
        parts.append(f"\n# {title}\n\n")
        parts.append(_section(list(group)))
    return "".join(parts)


def _section(group: list[Declared]) -> str:
    """Return one section: keys at the top first, then each object with its keys."""
    lines: list[str] = []
    open_objects: tuple[str, ...] = ()
    for declared in sorted(group, key=_object_of):  # stable: the order of the schema within an object
        objects = _object_of(declared)
        shared = 0
        while shared < min(len(objects), len(open_objects)) and objects[shared] == open_objects[shared]:
            shared += 1
        lines.extend(f"\n#{'  ' * depth}{objects[depth]}:" for depth in range(shared, len(objects)))
        open_objects = objects
        lines.append(_entry(declared))
    return "\n".join(lines) + "\n"


def _object_of(declared: Declared) -> tuple[str, ...]:
    return declared.setting.file_path[:-1]


def _entry(declared: Declared) -> str:
    setting = declared.setting
    meaning = setting.meaning
    if setting.kind is DURATION_S and setting.default:
        meaning += f" Here: {setting.default_text}."
    if setting.shown_default is not None:
        meaning += f" By default: {setting.shown_default}."
    indent = "  " * (len(setting.file_path) - 1)
    prose = textwrap.indent(textwrap.fill(meaning, WIDTH), "# ")
    value = yaml.safe_dump(setting.kind.to_file(setting.default), width=1000, default_flow_style=True)
    value = value.removesuffix("\n").removesuffix("\n...")  # the end mark of a document that is one scalar
    return f"{prose}\n#{indent}{setting.file_path[-1]}: {value}"


def main() -> None:
    """Entry point."""
    fresh = sample()
    if "--check" not in sys.argv[1:]:
        SAMPLE.write_text(fresh, encoding="utf-8")
    elif SAMPLE.read_text(encoding="utf-8") != fresh:
        sys.exit("config/actcd.sample.yaml is stale, run 'python tools/gensample.py'")


if __name__ == "__main__":
    main()
