"""The process: command line, wiring, start, stop, crash."""
