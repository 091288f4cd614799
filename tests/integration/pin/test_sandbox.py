"""The sandbox of a pod, which the runtime does not report as a container."""

from __future__ import annotations

import pytest

from tests.testbed.host import Host
from tests.testbed.runtime import Runtime
from tests.testbed.wait import until

from .conftest import OWNER

SCOPE = "kubepods.slice/kubepods-pod1.slice/cri-containerd-pod-a.scope"


@pytest.mark.usefixtures("connected")
async def test_sandbox_is_kept_off_the_isolated_cpus(host: Host, runtime: Runtime) -> None:
    host.cgroup_file(f"{SCOPE}/cgroup.threads", "17\n")
    cpuset = host.cgroup_file(f"{SCOPE}/cpuset.cpus", "\n")
    pod = runtime.run_pod("a", "kubepods-pod1.slice", "kubepods-pod1.slice:cri-containerd:pod-a")
    await runtime.create(pod, "owner", OWNER)
    assert cpuset.read_text() == "0-1,4-5"
    with cpuset.open("r+") as file:  # in one step, as in a cgroup
        file.write("0-7".ljust(len("0-1,4-5")))
    await until(lambda: cpuset.read_text() == "0-1,4-5")
