"""Real servers under faults, and what their clients were told, judged as a whole.  See __main__.py."""
