"""The commands for an operator, one module each; programs.py names them all."""
