"""The device plugin's worker as a task, what it logs, and kubelets with faults."""

from __future__ import annotations

import asyncio
import logging

import pytest

from isolcpus_dp import pool
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet import daemon
from isolcpus_dp.kubelet.outcome import Earlier, Outcome, Reporter
from isolcpus_dp.simulator.kubelet import Kubelet

PATIENCE = 20  # seconds until a waiting test fails


class Exited(Exception):
    """In place of the end of the process; the argument is its exit status."""


class Log(logging.Handler):
    """What the worker logs."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._changed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._changed.set()

    async def has(self, text: str) -> None:
        """Waits until a message begins with the text."""
        while not any(message.startswith(text) for message in self.messages):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE)


class Worker:
    """A worker, which runs as a task."""

    def __init__(
        self,
        host: daemon.Host,
        present: machine.Machine,
        earlier: Earlier,
        claims: pool.Claims | None = None,
    ) -> None:
        """`claims` are those of its parent."""
        self.told: list[str] = []
        claims = claims or pool.claim(present, Config(), {})
        reporter = Reporter(self.told.append)
        made = daemon.Daemon(host, Config(), present, claims, reporter, earlier)
        self.task = asyncio.create_task(made.live())

    async def ended(self) -> Outcome:
        """Waits until it has ended with status 0; what its parent learns."""
        with pytest.raises(Exited, match=r"^0$"):
            await asyncio.wait_for(self.task, PATIENCE)
        return Outcome.read(self.told)


class Rejecting(Kubelet):
    """Rejects the first registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        if self.registrations == 1:
            raise ValueError("not\nnow")
        await super().connect(request)


class Forgetful(Kubelet):
    """Accepts a registration, and then does not connect to the plugin."""

    async def connect(self, request: api.RegisterRequest) -> None:
        pass


class Hanging(Kubelet):
    """Does not answer a registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        self._notify()
        await asyncio.Event().wait()
