"""Tells what most likely disturbed a CPU, and what to do about it."""
