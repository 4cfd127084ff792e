"""One un-started actor at a time."""
