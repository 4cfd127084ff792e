"""Alarms and the quota that raises one of them."""
