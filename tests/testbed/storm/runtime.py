"""The simulated container runtime as a process that ends at a moment of its life (see `life`).

python3 -m tests.testbed.storm.runtime MOMENT SECONDS SIGNAL SOCKET OWN OTHERS

OWN is the CPU list of an owner, OTHERS the one that all others must get. Its containers are new in
each runtime, so that each Synchronize updates all of them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.ttrpc import Connection, Lost
from tests.testbed.host import RESOURCE
from tests.testbed.runtime import Runtime, cpus
from tests.testbed.storm.life import Life, live

_OTHERS = 20


class MortalRuntime(Runtime):
    """Tells its life what it does."""

    def __init__(self, life: Life, socket: Path) -> None:
        super().__init__(socket, request_seconds=20)
        self._life = life

    def answer(self, service: str, method: str, payload: bytes) -> bytes:
        self._life.begins(method)
        answer = super().answer(service, method, payload)
        self._life.tell(f"{method} answered")
        return answer

    async def _call(self, plugin: Connection, method: str, request: Any) -> bytes:
        self._life.begins(method)
        answer = await super()._call(plugin, method, request)
        self._life.tell(f"{method} answered")
        return answer


async def start(life: Life) -> Callable[[], Awaitable[None]]:
    """Starts the runtime, and returns what stops it."""
    socket, own, others = sys.argv[4:7]
    runtime = MortalRuntime(life, Path(socket))
    await runtime.create(runtime.run_pod("a"), "owner", {RESOURCE: own})
    for number in range(_OTHERS):
        await runtime.create(runtime.run_pod(f"other-{number}"))
    starting = await runtime.create(runtime.run_pod("starting"), starts=False)
    await runtime.start()
    life.tell("bound")
    life.begins("socket")
    running = asyncio.create_task(_use(life, runtime, starting, own, others))

    async def stop() -> None:
        running.cancel()
        await runtime.stop()

    return stop


async def _use(
    life: Life, runtime: Runtime, starting: api.Container, own: str, others: str
) -> None:
    """Does what a runtime does for the kubelet: starts a container, creates others."""
    await runtime.until_connected(60)
    wrong = [
        one.id
        for one in runtime.containers.values()
        if cpus(one) != (own if one.name == "owner" else others)
    ]
    life.tell(f"wrong: {', '.join(wrong)}" if wrong else "healthy")
    try:
        await runtime.start_container(starting)
        created = await runtime.create(runtime.run_pod("new"))
    except Lost:
        return  # it is being stopped; otherwise it is missed that it is idle
    if cpus(created) != others:
        life.tell(f"wrong: {created.id}")
    life.begins("idle")


if __name__ == "__main__":
    live(start)
