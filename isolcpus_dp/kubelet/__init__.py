"""The device plugin daemon: what it answers the kubelet, its socket, and its life."""
