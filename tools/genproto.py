"""Generate the Python modules and stubs of proto/*.proto, or check that they are fresh.

``python tools/genproto.py`` writes them; ``--check`` compares with what is there and exits 1 on drift.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SERVICES = {"rpc.proto", "election.proto", "lock.proto"}
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


def generate(out: Path) -> None:
    """Compile every .proto file into *out* (which then holds a ``proto/`` folder)."""
    for source in sorted((ROOT / "proto").glob("*.proto")):
        outputs = [f"--python_out={out}", f"--pyi_out={out}"]
        if source.name in SERVICES:
            outputs.append(f"--grpc_python_out={out}")
        code = protoc.main(["protoc", f"-I{ROOT}", f"-I{WELL_KNOWN}", *outputs, f"proto/{source.name}"])
        if code != 0:
            sys.exit(f"protoc failed on {source.name}")


def drifted(fresh: Path) -> list[str]:
    """Names of the generated files in the tree that differ from those in *fresh*."""
    made = {path.name: path.read_bytes() for path in (fresh / "proto").iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / "proto").glob("*_pb2*")}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def main() -> None:
    """Entry point."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = drifted(Path(folder))
    if stale:
        sys.exit("generated code is stale, run 'make proto': " + ", ".join(stale))


if __name__ == "__main__":
    main()
