"""What CompactorActor receives."""

from __future__ import annotations

from actors.messages.common import Tick
from actors.messages.raft import RoleIs
from actors.messages.serve import Answered, Completed, Refused

CompactorMessage = RoleIs | Answered | Completed | Refused | Tick
