"""What the host is: CPU lists, its machine, CPU hotplug, file and socket watches."""
