"""Kubelets that reject or mishandle a registration."""

from __future__ import annotations

import os

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.simulator.kubelet import Kubelet


class MuteKubelet(Kubelet):
    """Accepts a registration, but never opens ListAndWatch."""

    async def connect(self, request: api.RegisterRequest) -> None:
        pass


class RefusingKubelet(Kubelet):
    """Rejects every registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        raise ValueError("the resource is not supported")


class ReplacedKubelet(Kubelet):
    """Its socket is replaced before it answers the first registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        await super().connect(request)
        if self.registrations == 1:
            os.utime(self.directory / "device-plugins" / "kubelet.sock")
