"""Readable raft stories with recorded output."""
