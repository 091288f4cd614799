"""How quiet isolated CPUs are, and what disturbs them: `isolcpus-dp measure`.

Only a command runs this, never a daemon. The busy loop is oslat of rt-tests; `record/` counts what
happens on the CPUs beside it, `cause/` tells which of it is the likely cause, and `show/` prints
the result.
"""
