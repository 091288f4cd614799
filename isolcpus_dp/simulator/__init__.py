"""A simulated kubelet, runtime and machine, and a stand-in for systemd: for demos and tests."""
