"""Exports the CPUs that the kernel has isolated to Kubernetes, so that a container can own them."""

# The only place of the version: setup.cfg, the Makefile and tools/dist read this line.
__version__ = "0.2.0"
