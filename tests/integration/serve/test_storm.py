"""Restarts of the kubelet at moments of the device plugin's life. `make storm` runs many more."""

from __future__ import annotations

import random

from tests.testbed.daemon import is_ready, supervisor
from tests.testbed.host import Host
from tests.testbed.storm.plan import draw
from tests.testbed.storm.storm import Storm, device_plugin, left_behind
from tests.testbed.wait import until

# The limit of a real storm is 1 s.
LONG_SECONDS = 20.0


async def test_nothing_grows_while_the_kubelet_restarts(host: Host) -> None:
    subject = device_plugin(host)
    rounds = draw(random.Random(1), subject.moments, 3, 5, longest_apart=0.2, busy_loops=1)
    async with supervisor(host, "serve").running() as daemon:
        await daemon.worker(is_ready)
        storm = Storm(subject, daemon)
        await storm.run(rounds, LONG_SECONDS)
        first, _, last = storm.record.samples
        pids = subject.processes(daemon.current)
    assert storm.record.failures == []
    assert storm.record.restarts == 15
    main = first["main process"].holdings
    assert (main.threads, main.watches) == (1, 0)
    assert last["main process"].holdings == main
    # gRPC has a thread or a connection more in some workers.
    before, after = first["worker"].holdings, last["worker"].holdings
    assert after.watches == before.watches
    assert after.threads <= before.threads + 2
    assert after.descriptors <= before.descriptors + 2
    assert len(daemon.runs) == 1
    await until(lambda: left_behind(host, pids.values()) == [])
    assert "Traceback" not in host.log
