"""The raft log on disk: format, segments, snapshots.  No actor, no thread."""
