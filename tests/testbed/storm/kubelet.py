"""The simulator's kubelet as a process that ends at a moment of its life (see `life`).

python3 -m tests.testbed.storm.kubelet MOMENT SECONDS SIGNAL KUBELET-DIR CONTAINERS DEVICES

Its static pod `owner` needs one device. It is new in each kubelet, so that each one calls Allocate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["GRPC_VERBOSITY"] = "NONE"

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from tests.testbed.host import RESOURCE
from tests.testbed.storm.life import Life, live

if TYPE_CHECKING:
    from isolcpus_dp.simulator.plugins import Plugin

_OWNER = Pod("owner", {RESOURCE: 1})


class MortalKubelet(Kubelet):
    """Tells its life what it does."""

    def __init__(self, life: Life, directory: Path, containers: Path, devices: int) -> None:
        super().__init__(directory, containers, [_OWNER], on_change=self._on_changed)
        self._life = life
        self._devices = devices
        self._is_healthy = False

    async def start(self) -> None:
        await super().start()
        self._life.tell("bound", self.bound)
        self._life.begins("socket")

    async def Register(self, request: api.RegisterRequest, context: Any) -> api.Empty:
        self._life.begins("Register")
        answer = await super().Register(request, context)
        self._life.tell("Register answered")
        return answer

    async def _list_and_watch(self, plugin: Plugin) -> None:
        self._life.begins("ListAndWatch")
        await super()._list_and_watch(plugin)

    async def admit(self, pod: Pod) -> Mapping[str, api.ContainerAllocateResponse]:
        self._life.begins("Allocate")
        answers = await super().admit(pod)
        self._life.tell("allocated")
        self._life.begins("idle")
        return answers

    def _on_changed(self) -> None:
        if not self._is_healthy and self.allocatable(RESOURCE) == self._devices:
            self._is_healthy = True
            self._life.tell("healthy", self.plugins[RESOURCE].reported)


async def start(life: Life) -> Callable[[], Awaitable[None]]:
    """Starts the kubelet, and returns what stops it."""
    directory, containers, devices = sys.argv[4:7]
    paths.checkpoint(Path(directory)).unlink(missing_ok=True)
    (Path(containers) / _OWNER.name).unlink(missing_ok=True)
    kubelet = MortalKubelet(life, Path(directory), Path(containers), int(devices))
    await kubelet.start()
    return kubelet.stop


if __name__ == "__main__":
    live(start)
