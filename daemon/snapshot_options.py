"""What `actcd snapshot save` is asked for and may end in, apart from daemon/snapshot_save.py, which loads slowly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class SaveFailed(Exception):  # noqa: N818 - named for what happened
    """No snapshot came; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """Where from, where to, and as whom."""

    path: Path
    endpoint: str
    cacert: str = ""
    """Paths of PEM files.  The endpoint's scheme decides whether there is TLS; without a scheme any of these does."""
    cert: str = ""
    key: str = ""
    insecure_transport: bool = True
    insecure_skip_tls_verify: bool = False
    user: str = ""
    password: str = ""
    dial_timeout_s: float = 2.0
    command_timeout_s: float | None = None
