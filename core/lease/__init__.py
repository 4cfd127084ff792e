"""Leases: who holds which keys and until when."""
