"""The suite: fast layers first, processes last."""
