"""Sockets and wire formats.  Knows nothing of etcd."""
