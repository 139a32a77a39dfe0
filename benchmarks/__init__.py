"""The platform beside its peers: one comparison a module, run as `python -m benchmarks.NAME [--quick]`."""
