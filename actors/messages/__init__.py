"""What each actor receives, one module an actor."""
