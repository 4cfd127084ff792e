"""Users, roles, and what they may do: replicated state, and the tokens that stand for a login."""
