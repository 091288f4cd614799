"""Prints the result of a measurement: a table, JSON, a picture."""
