"""Exports the CPUs that the kernel has isolated to Kubernetes, so that a container can own them."""
