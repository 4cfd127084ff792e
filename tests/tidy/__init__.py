"""The tree itself, under test."""
