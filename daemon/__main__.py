"""The entry point of the program ``actcd``."""

from __future__ import annotations

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Load the program and run it.

    Next to nothing of what is loaded can be collected: looking for it would be a tenth of a start.  The collector wakes
    up when all is there.
    """
    gc.disable()
    from daemon.program import main as run  # noqa: PLC0415 - after the line above

    run()


if __name__ == "__main__":
    main()
