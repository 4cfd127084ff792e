"""Cores through their public verbs."""
