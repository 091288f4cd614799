"""Many restarts of a kubelet or a container runtime, each at a moment of a daemon's life.

`bench/storm` runs a thousand of them, the tests a few.
"""
