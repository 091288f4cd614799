"""A kubelet whose root directory is not the one that has device-plugins/."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from tests.testbed.daemon import registered, supervisor
from tests.testbed.host import RESOURCE, Host


async def run(host: Host, subcommand: str, *more: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *host.command(subcommand, *more), stdout=subprocess.PIPE
    )
    stdout, _ = await asyncio.wait_for(process.communicate(), 30)
    return stdout.decode()


def move_root(host: Host) -> Path:
    """Moves what --root-dir moves; returns the root directory."""
    root = host.directory / "root"
    root.mkdir()
    (host.kubelet_dir / "pod-resources").rename(root / "pod-resources")
    return root


def evidence(text: str) -> Any:
    [found] = json.loads(text)["checks"]
    return found["evidence"]


async def test_commands_read_the_configured_root(host: Host, kubelet: Kubelet) -> None:
    root = move_root(host)
    (root / "config.yaml").write_text('cpuManagerPolicy: static\nreservedSystemCPUs: "0"\n')
    file = host.configure(f"[Kubelet]\nRootDirectory={root}\n")
    configured = ("--config", file)
    assert json.loads(await run(host, "status", "--json"))["unseen"] != []
    assert not any(
        "CPU owners" in one
        for one in json.loads(await run(host, "status", "--json", *configured))["unseen"]
    )
    assert "not seen:" in await run(host, "map")
    assert "not seen:" not in await run(host, "map", *configured)
    check = ("check", "--json", "--only", "cpu-manager", *configured)
    assert evidence(await run(host, *check)).startswith(f"{root}/cpu_manager_state does not exist")
    (root / "cpu_manager_state").write_text('{"policyName": "static"}')
    assert evidence(await run(host, *check)) == (
        f"policy static; {root}/cpu_manager_state gives no isolated CPU to a container"
    )


async def scraped(path: Path) -> str:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer.decode()


async def test_metrics_have_the_allocations_of_the_configured_root(
    host: Host, kubelet: Kubelet
) -> None:
    root = move_root(host)
    path = host.directory / "metrics.sock"
    text = f"[Metrics]\nListen={path}\n[Kubelet]\nRootDirectory={root}\n"
    async with registered(supervisor(host, "serve", text), kubelet):
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
        allocated = f'isolcpus_dp_allocated_cpus{{resource="{RESOURCE}"}} 2.0'
        for _ in range(50):
            if allocated in (seen := await scraped(path)):
                break
            await asyncio.sleep(0.2)  # it is absent if the kubelet did not answer in time
        assert allocated in seen
