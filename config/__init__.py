"""Settings: the schema, where they come from, what is refused."""
