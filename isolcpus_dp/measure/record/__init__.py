"""Counts what happens on CPUs while they are measured."""
