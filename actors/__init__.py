"""The threads of a node: one module an actor, and nothing else in it."""
