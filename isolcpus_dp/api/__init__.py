"""The kubelet's interfaces in Python: every module here is generated from `proto/` by setup.py."""
