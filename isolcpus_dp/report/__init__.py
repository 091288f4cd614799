"""What an operator sees: status, the map, the check of the host's isolation, metrics."""
