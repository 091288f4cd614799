"""The pinning daemon: sets containers' cpusets through NRI, the runtime's plugin interface."""
