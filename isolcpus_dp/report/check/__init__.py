"""Checks of a host's isolation: one module per theme, one function per check.

Each function takes a `Host` and returns a `Finding`; `table` lists them all. A check only reads; it
changes nothing on the host.
"""
