"""The kubelet's directory changes while a worker starts."""

from __future__ import annotations

from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, supervisor
from tests.testbed.host import Host

# Removes the kubelet's directory once, when the endpoint in it is bound.
REMOVED_DIRECTORY = """
import pathlib, shutil
from isolcpus_dp.kubelet.endpoint import Endpoint
prove, directory, done = Endpoint.prove, pathlib.Path({!r}), pathlib.Path({!r})
async def prove_and_remove(endpoint):
    await prove(endpoint)
    if not done.exists():
        done.touch()
        shutil.rmtree(directory)
Endpoint.prove = prove_and_remove
"""


async def test_directory_removed_while_a_worker_starts_is_one_sentence(
    host: Host, start_kubelet: StartKubelet
) -> None:
    done = host.directory / "done"
    prelude = REMOVED_DIRECTORY.format(str(host.device_plugins), str(done))
    async with supervisor(host, "serve", prelude=prelude).running() as daemon:
        await daemon.until(lambda run: "Waiting for the kubelet's directory" in run.status)
        assert "was removed, moved or replaced; waiting for the next kubelet" in host.log
        assert "Traceback" not in host.log
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1
