"""Protocol buffers: sources, and the modules that tools/genproto.py makes of them."""
