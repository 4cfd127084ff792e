"""No setting is accepted and then ignored."""

from __future__ import annotations

import re

from config.schema import DECLARED
from tests.tidy.test_layers import modules

READERS = ("config", "daemon")
"""Who reads settings; everybody else is handed values."""

WITHOUT_A_READER = {
    "socket-reuse-address": "is always so on listeners, with Go as here",
    "logger": "has a single value, which its check demands",
}


def test_every_setting_is_read_or_says_that_it_is_not() -> None:
    """A key that nothing reads is a promise: it must warn that it has no effect."""
    code = "\n".join(
        path.read_text() for layer in READERS for path in modules(layer) if path.name not in {"schema.py", "setting.py"}
    )
    unread = [
        each.setting.name
        for each in DECLARED
        if each.setting.note is None
        and not re.search(rf"\.{each.attribute}\b", code)
        and f'"{each.setting.name}"' not in code
    ]
    assert unread == sorted(WITHOUT_A_READER, key=[each.setting.name for each in DECLARED].index)
