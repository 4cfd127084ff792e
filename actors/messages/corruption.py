"""What CorruptionActor receives."""

from __future__ import annotations

from actors.messages.common import ClusterIs, Tick
from actors.messages.lease import AppliedIs
from actors.messages.metrics import Measure
from actors.messages.raft import RoleIs
from actors.messages.serve import Answered, ReadIndexed, Refused

CorruptionMessage = RoleIs | ClusterIs | Answered | ReadIndexed | AppliedIs | Refused | Tick | Measure
