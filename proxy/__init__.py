"""Programs that stand between clients and members."""
