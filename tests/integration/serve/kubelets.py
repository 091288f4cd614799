"""Kubelets that do not take a registration as they should."""

from __future__ import annotations

import os

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.simulator.kubelet import Kubelet


class MuteKubelet(Kubelet):
    """Takes a registration, and then does nothing about it."""

    async def connect(self, request: api.RegisterRequest) -> None:
        pass


class RefusingKubelet(Kubelet):
    """Refuses every registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        raise ValueError("the moon is in the wrong phase")


class ReplacedKubelet(Kubelet):
    """Has a new socket in its place by the time it answers the first registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        await super().connect(request)
        if self.registrations == 1:
            os.utime(self.directory / "device-plugins" / "kubelet.sock")
