"""The soak: an hour in a virtual machine in which everything comes, goes and restarts.

`make soak` runs it. These modules run in the guest: `kubelet`, which uses `containers`, `author`
and `look`. `python3 -m tests.vm.soak` runs on the host, disturbs the guest and keeps the record.
"""
