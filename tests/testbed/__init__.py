"""A simulated host, daemon processes and a container runtime, for tests and benchmarks.

It does not need pytest, and is not part of the package.
"""
