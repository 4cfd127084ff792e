"""The table of metrics and the code that counts agree."""

from __future__ import annotations

import re

from services.metric_families import FAMILIES
from tests.tidy.test_layers import modules

COUNTERS = ("core", "services", "actors", "grpcproxy", "daemon")
NAME = re.compile(r'"((?:etcd|actcd|grpc_server|os_fd|promhttp|process_virtual)_[a-z_]+)"')


def test_every_family_is_counted_and_every_count_has_a_family() -> None:
    """A sample without a family would end the page, a family without samples promises what is not there."""
    code = "\n".join(
        path.read_text() for layer in COUNTERS for path in modules(layer) if path.name != "metric_families.py"
    )
    named = {name for name in NAME.findall(code) if not name.endswith("_")}
    assert named == FAMILIES.keys()


def test_families_stand_in_the_order_of_their_names() -> None:
    """So that they are found."""
    assert list(FAMILIES) == sorted(FAMILIES)
