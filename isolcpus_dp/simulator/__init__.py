"""A kubelet, made-up machines and a stand-in for systemd: to try the daemon, and for its tests."""
