"""Files of the guest by which the programs of the soak know of each other."""

from __future__ import annotations

from pathlib import Path

MANIFESTS = Path("/etc/kubernetes/manifests")
STATUS = Path("/var/lib/kubelet/node-status.json")  # written by the kubelet
CREATED = Path("/run/soak-pods.json")  # written by the author: what it has created, and outcomes
PAUSE = Path("/run/soak-pause")  # while it exists, the author changes nothing
