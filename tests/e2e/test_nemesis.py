"""Real servers under faults while clients ask and watch: whatever they were told must fit one history.

`make nemesis MINUTES=...` does it for longer.  That the checks would notice is shown in tests/sim/test_history.py.
"""

from pathlib import Path

import pytest

from tests.e2e.harness import actcd
from tests.nemesis.run import run

pytestmark = pytest.mark.e2e

SECONDS = 20.0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_promises_are_kept_under_faults(tmp_path: Path) -> None:
    """Linearizable, nothing acknowledged lost, watches complete, and all members equal once the faults have ended."""
    verdict = run(tmp_path, programs=[actcd()] * 3, seed=1, seconds=SECONDS, say=print)
    assert verdict.answered > 100, "a run without traffic shows nothing"
    assert verdict.revision > 30, "a run without writes shows nothing"
    assert verdict.faults >= 3, "a run without faults shows nothing"
