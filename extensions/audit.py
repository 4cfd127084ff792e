"""AuditActor: who did what, from where, with which result; one JSON object a line, in files that are rotated.

    extensions:
    - actor: "extensions.audit:AuditActor"
      options: {path: /var/log/actcd/audit.jsonl, max-size-mib: 100, max-files: 10, reads: true}

Every call of gRPC and of the JSON gateway is in it, denied and failed ones too, and those that reached no method: an
unknown one, or a message that is too large or none.  Never values, passwords or tokens.  Not seen are headers above
the limit, and with ``engine: grpcio`` messages above theirs, which end before anybody knows what was called.
Calls are written after they have ended, so a crash of the process may cost the last of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import final

from actors.extension import ExtensionActor
from actors.messages.extension import CallsSeen
from extensions.audit_record import is_wanted, record
from extensions.rotation import RotatedFile

MIB = 1 << 20


@dataclass(frozen=True)
class AuditOptions:
    """Where to write, and what."""

    path: str
    max_size_mib: int = 100
    """Of one file."""
    max_files: int = 10
    """How many are kept, the one that is written included."""
    reads: bool = True
    """Whether calls that change nothing are written as well; those that were denied always are."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense; raises ValueError."""
        if not self.path:
            raise ValueError("the option path must not be empty")
        if self.max_size_mib < 1 or self.max_files < 1:
            raise ValueError("max-size-mib and max-files must be at least 1")


@final
class AuditActor(ExtensionActor):
    """Writes the audit.

    Owns: its files.  Tells: nobody.  Fails when: they cannot be written.
    """

    Options = AuditOptions
    observes_calls = True

    def setup(self) -> None:
        """Open the file."""
        options: AuditOptions = self.node.options
        path = Path(options.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = RotatedFile(path, options.max_size_mib * MIB, options.max_files)
        self._reads = options.reads

    def handle(self, message: object) -> None:
        """Write the calls that were seen."""
        if not isinstance(message, CallsSeen):
            return
        member = self.node.member_name
        lines = [record(seen, member) for seen in message.calls if is_wanted(seen, reads=self._reads)]
        if message.lost:
            self.node.logger.warning("the audit has lost calls", count=message.lost)
            lines.append({"member": member, "lost": message.lost})
        if lines:
            self._file.write(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))

    def teardown(self) -> None:
        """Make it durable."""
        self._file.close()
