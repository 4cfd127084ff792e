"""The deterministic simulation: a cluster of real actors on one thread, replayed from a seed.  See __main__.py."""
