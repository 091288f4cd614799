"""Reads the host: CPU lists, its machine, CPU hotplug, watches of files and sockets."""
