"""LevelDB behind the port that core/mvcc asks for."""
