"""The names of the project's systemd units, and of the kubelet's."""

from __future__ import annotations

PLUGIN = "isolcpus-dp.service"
PIN = "isolcpus-dp-pin.service"

# The kubelets that the plugin's unit is ordered after. Not those of k3s and RKE2 servers: see
# systemd/isolcpus-dp.service.d/kubelet-order.conf.
KUBELETS = ("kubelet.service", "k3s-agent.service")
