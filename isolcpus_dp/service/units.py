"""The names of the project's systemd units."""

from __future__ import annotations

PLUGIN = "isolcpus-dp.service"
PIN = "isolcpus-dp-pin.service"
