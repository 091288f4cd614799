"""NRI, the container runtime's own interface: how containers come onto their CPUs, or off them."""
