"""The raft algorithm as a plain object."""
