"""actcd and etcd side by side on one machine: `python -m bench`."""
