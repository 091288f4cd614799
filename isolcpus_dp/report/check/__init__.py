"""Is this host's isolation real? A family of checks, one module per theme, one function per check.

Each takes a `Host` and returns a `Finding`; `table` lists them all. They read files and nothing
else: no check changes anything.
"""
