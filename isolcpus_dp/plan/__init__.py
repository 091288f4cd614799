"""A host's configuration from a machine and a wish: which CPUs are isolated, and which stay.

`wish` applies the wish to a machine; `kernel`, `systemd`, `kubelet`, `runtime` and `plugin` make a
part each; `parts` puts them together; `write`, `differ` and `show` write, compare and print them.
"""
