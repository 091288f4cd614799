"""The targets: one module for each kind of input, with a function `check`."""
