"""What tests and benchmarks run the daemons with: a made-up host, processes, a container runtime.

It needs no pytest, and it is not part of the package.
"""
