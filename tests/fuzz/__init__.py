"""Fuzzing: each target in `targets/` has a function `check`, which takes any bytes.

It calls a part of the product and returns whether that part accepted the bytes. Only the exceptions
that the part documents are caught. `corpus/` has the files with which the search begins.
"""
