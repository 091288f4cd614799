"""The command `check` and a kubelet that runs a static pod without the devices it requests."""

from __future__ import annotations

import asyncio
import json
import platform
import subprocess

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from tests.testbed.host import RESOURCE, Host


async def test_check_names_a_static_pod_without_its_devices(host: Host, kubelet: Kubelet) -> None:
    manifests = host.directory / "manifests"
    manifests.mkdir()
    container = {"name": "main", "resources": {"limits": {RESOURCE: 2}}}
    pod = {"kind": "Pod", "metadata": {"name": "early"}, "spec": {"containers": [container]}}
    (manifests / "early.json").write_text(json.dumps(pod))
    settings = {"staticPodPath": str(manifests)}
    (host.kubelet_dir / "config.yaml").write_text(json.dumps(settings))

    # A kubelet that has never seen the resource does not ask a plugin for it.
    name = f"early-{platform.node().lower()}"
    await kubelet.admit(Pod(name, {}))

    command = host.command("check", "--only=static-pods", "--json")
    shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    [check] = json.loads(shown.stdout)["checks"]
    assert f"default/{name}/main has 0 of 2 {RESOURCE}" in check["evidence"]
    assert f"mv {manifests}/early.json /root/" in check["advice"]
    assert shown.returncode == 1
