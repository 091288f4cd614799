"""Kubelets that reject or mishandle a registration."""

from __future__ import annotations

import os
from pathlib import Path

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.simulator.kubelet import Kubelet


def recreate_socket(path: Path) -> None:
    """Replaces a socket by one that was bound now, and on which the same process listens."""
    again = path.with_name("again")
    os.link(path, again)
    os.utime(again)
    path.unlink()
    again.rename(path)


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
            recreate_socket(self.directory / "device-plugins" / "kubelet.sock")
