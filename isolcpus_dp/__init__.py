"""Makes the CPUs that the kernel has isolated available to Kubernetes, for containers to own."""

# The only place of the version: setup.cfg, the Makefile and tools/dist read this line.
__version__ = "0.3.0"
