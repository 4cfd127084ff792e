"""How the members of a new cluster find each other before any of them has data."""
