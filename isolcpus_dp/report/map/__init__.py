"""`isolcpus-dp map`: the host as a picture in the terminal, or in an SVG file."""
