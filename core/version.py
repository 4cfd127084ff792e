"""The versions that this server tells: only a release whose features all work here."""

from __future__ import annotations

SERVER_VERSION = "3.5.21"
"""The release of etcd that clients may take this server for (they switch features on by it)."""

CLUSTER_VERSION = "3.5.0"
"""What a cluster whose members all run SERVER_VERSION agrees on."""

MIN_CLUSTER_VERSION = "3.0.0"
"""The oldest cluster that a member of this version may join."""
