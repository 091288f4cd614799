"""Fuzzes the NRI transport and plugin with bytes from a runtime. `make fuzz` runs it.

No exception may be raised: a connection answers, waits for more, or is closed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["isolcpus_dp"]):
    from isolcpus_dp.api import ttrpc_pb2
    from isolcpus_dp.config import PinningConfig
    from isolcpus_dp.host import inotify
    from isolcpus_dp.nri import frames
    from isolcpus_dp.nri.messages import Update
    from isolcpus_dp.nri.pinning import Owned, Rules
    from isolcpus_dp.nri.plugin import PLUGIN_SERVICE, TO_PLUGIN, TO_RUNTIME, Plugin
    from isolcpus_dp.nri.quota import Quotas
    from isolcpus_dp.nri.requested import Requested
    from isolcpus_dp.nri.sandbox import Sandboxes
    from isolcpus_dp.nri.ttrpc import Connection
    from isolcpus_dp.nri.unconfirmed import Unconfirmed
    from isolcpus_dp.nri.watches import Watches

ALL = frozenset(range(8))
ISOLATED = frozenset({2, 3, 6, 7})
RULES = Rules(
    pools={"windriver.com/isolcpus": Owned(ISOLATED, mixed=False)},
    isolated=ISOLATED,
    housekeeping=ALL - ISOLATED,
    nameable=ALL,
    online=ALL,
    nodes={cpu: cpu // 4 for cpu in ALL},
    pinning=PinningConfig(),
)
METHODS = (
    "Configure",
    "Synchronize",
    "CreateContainer",
    "UpdateContainer",
    "StopContainer",
    "StateChange",
    "Shutdown",
    "Other",
)


class Runtime:
    """The plugin's connection to the runtime; it drops the updates that the plugin requests."""

    rules = RULES

    def __init__(self) -> None:
        cgroups, watches = Path("/nonexistent"), Watches(inotify.Watch())
        self.quotas = Quotas(cgroups, watches)
        self.sandboxes = Sandboxes(cgroups, lambda: RULES, watches)
        self.unconfirmed = Unconfirmed()
        self.requested = Requested()

    def synchronized(self, runtime: str) -> None:
        pass

    def update(self, update: Update) -> None:
        pass


class Wire(asyncio.Transport):
    """A transport that counts the answers."""

    answers = 0

    def write(self, data: object) -> None:
        self.answers += 1

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def fuzz(data: bytes) -> None:
    """Sends the bytes in parts as they are, or as the payload of a call, which must be answered."""
    source = atheris.FuzzedDataProvider(data)
    connection = Connection(
        TO_PLUGIN,
        TO_RUNTIME,
        Plugin(Runtime()).answer,
    )
    wire = Wire()
    connection.connection_made(wire)
    if source.ConsumeBool():
        while source.remaining_bytes():
            connection.data_received(source.ConsumeBytes(source.ConsumeIntInRange(1, 64)))
        return
    method = source.PickValueInList(list(METHODS))
    payload = source.ConsumeBytes(source.remaining_bytes())
    request = ttrpc_pb2.Request(service=PLUGIN_SERVICE, method=method, payload=payload)
    connection.data_received(frames.message(TO_PLUGIN, 1, 1, request.SerializeToString()))
    if wire.answers != 1:
        raise AssertionError("a call was not answered exactly once")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.set_event_loop(asyncio.new_event_loop())
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
