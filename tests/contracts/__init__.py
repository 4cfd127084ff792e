"""One suite a port, run on its fake and on the real thing."""
