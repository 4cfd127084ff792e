"""The hot path as machine code: mypyc over typed modules that run as they stand, too.

    python -m tools.compiled build     compile them into the tree, beside their sources (needs a C compiler)
    python -m tools.compiled remove    go back to the sources
    python -m tools.compiled check     exit 1 if a source is newer than what was compiled of it

Python takes an extension module before a source of the same name, so nothing else need know of this.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SUFFIX: Final = EXTENSION_SUFFIXES[0]
BUILD: Final = Path("build")
"""Relative to the root: generated C, and what is made of it."""

MODULES: Final = {
    "actors": "apply load loop_home raft serve wal watch",
    "core": "metrics request_id tuples types",
    "core/alarms": "book quota",
    "core/apply": "applier cost evaluate header kv numbers plain range txn",
    "core/lease": "book",
    "core/mvcc": "event keyspace ranks record staging store varint view watch_hub watch_messages watch_ranges"
    " watch_streams write",
    "core/raft": "candidate election follower leader log messages node quorum read_index ready replication role"
    " tracker",
    "net": "commons deadlines tally",
    "net/http2": "connection dispatch frames grpc guard headers life messages opening plain request sending stream"
    " streaming",
    "services": "decode kv request_times standing watch",
    "storage": "leveldb",
    "wal": "codec log record segment",
}
"""What every write, read and event passes through.  Not actors/base: interpreted actors inherit from it."""


def sources() -> list[Path]:
    """Return the modules to compile, relative to the root."""
    return [Path(folder, f"{name}.py") for folder, names in MODULES.items() for name in names.split()]


def built() -> Iterator[Path]:
    """Return the extension modules in the tree: two for each source, and those of sources that are no longer listed."""
    for package in sorted({source.parts[0] for source in sources()}):
        yield from (ROOT / package).rglob(f"*{SUFFIX}")


def stale() -> list[Path]:
    """Return the sources that were changed after they were compiled."""
    return [
        source
        for source in sources()
        if (extension := (ROOT / source).with_suffix(SUFFIX)).exists()
        and extension.stat().st_mtime < (ROOT / source).stat().st_mtime
    ]


def build() -> int:
    """Compile; the tree is as it was if that fails."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only who compiles has them
    from setuptools import setup  # noqa: PLC0415

    if shutil.which("cc") is None and shutil.which("gcc") is None:
        print("no C compiler: install one, or run the sources as they are", file=sys.stderr)
        return 1
    remove()
    shutil.rmtree(ROOT / BUILD, ignore_errors=True)  # what is there already may be taken for what it is no longer
    # A cache of its own: in one that mypy has used, mypyc takes old code of changed modules for new.
    options = ["--cache-dir", str(BUILD / "mypy")]
    paths = [str(source) for source in sources()]
    extensions = mypycify([*options, *paths], opt_level="2", debug_level="0", separate=True)
    places = ["--build-temp", str(BUILD / "temporary"), "--build-lib", str(BUILD / "library")]
    setup(
        name="actcd",
        packages=[],
        ext_modules=extensions,
        script_args=["--quiet", "build_ext", "--inplace", "--parallel", "2", *places],
    )
    print(f"compiled {len(sources())} modules; `make pure` removes them")
    return 0


def remove() -> int:
    """Remove what was compiled."""
    for extension in list(built()):
        extension.unlink()
    return 0


def check() -> int:
    """Tell whether what is compiled is what the sources say."""
    old = stale()
    for source in old:
        print(f"{source} was changed after it was compiled: make compile, or make pure", file=sys.stderr)
    return 1 if old else 0


COMMANDS: Final[dict[str, Callable[[], int]]] = {"build": build, "remove": remove, "check": check}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(COMMANDS[sys.argv[1]]())
