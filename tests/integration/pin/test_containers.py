"""Which CPUs the pinning daemon gives to a container that is created or updated."""

from __future__ import annotations

import json

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.runtime import Runtime, cpus, quota

from .conftest import OWNER


async def test_owner_is_pinned_and_others_are_kept_off(
    host: Host, runtime: Runtime, pod: api.PodSandbox, connected: Supervisor
) -> None:
    assert cpus(await runtime.create(pod, "owner", OWNER)) == "2-3"
    assert cpus(await runtime.create(pod, "plain")) == "0-1,4-5"
    assert cpus(await runtime.create(pod, "guaranteed", cpus="0-3")) == "0-1"
    assert cpus(await runtime.create(pod, "elsewhere", cpus="4")) == "4"
    await connected.until(
        lambda run: run.status == "Connected to simulated 1, isolated CPU 2-3,6-7"
    )
    assert "container owner of pod default/a owns CPU 2-3" in host.log
    [registration] = runtime.registered
    assert (registration.plugin_name, registration.plugin_idx) == ("isolcpus-dp", "10")


@pytest.mark.usefixtures("connected")
async def test_environment_and_pod_annotations_are_not_trusted(runtime: Runtime) -> None:
    pod = runtime.run_pod("forger")
    pod.annotations[RESOURCE] = "2-3"
    pod.labels[RESOURCE] = "2-3"
    forged = await runtime.create(pod, env=("ISOLCPUS=2-3", f"{RESOURCE}=2-3"))
    assert cpus(forged) == "0-1,4-5"


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("runtime_name", ["containerd"])
async def test_crio_annotation_is_ignored_on_other_runtimes(
    runtime: Runtime, pod: api.PodSandbox
) -> None:
    """containerd passes pod annotations that match its pod_annotations, which may be io.*."""
    forged = {"io.kubernetes.cri-o.Annotations": json.dumps(OWNER)}
    assert cpus(await runtime.create(pod, "forger", forged)) == "0-1,4-5"


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("runtime_name", ["cri-o"])
async def test_on_crio_only_annotations_of_the_kubelet_are_trusted(
    host: Host, runtime: Runtime, pod: api.PodSandbox
) -> None:
    kubelets = "io.kubernetes.cri-o.Annotations"
    real = {kubelets: json.dumps(OWNER), **OWNER}
    assert cpus(await runtime.create(pod, "owner", real)) == "2-3"
    # The annotations of the pod are mixed with those of the kubelet.
    assert cpus(await runtime.create(pod, "forger", {kubelets: "{}", **OWNER})) == "0-1,4-5"
    assert cpus(await runtime.create(pod, "plain", {kubelets: "null"})) == "0-1,4-5"
    assert cpus(await runtime.create(pod, "odd", OWNER)) == "0-1,4-5"
    assert "no decision" not in host.log


@pytest.mark.usefixtures("connected")
async def test_annotation_outside_the_pool_is_logged_with_the_reason(
    host: Host, runtime: Runtime
) -> None:
    pod = runtime.run_pod("odd")
    assert cpus(await runtime.create(pod, annotations={RESOURCE: "0-3"})) == "0-1,4-5"
    assert (
        f"container main of pod default/odd: annotation {RESOURCE}: 0-3:"
        " CPU 0-1 is not in the pool, which is 2-3,6-7"
    ) in host.log


async def test_update_cannot_widen_the_cpuset(
    runtime: Runtime, owner: api.Container, other: api.Container
) -> None:
    for container in (owner, other):
        await runtime.update(container, cpus="0-7")
    assert (cpus(owner), cpus(other)) == ("2-3", "0-1,4-5")
    # The static CPU manager may narrow it.
    await runtime.update(other, cpus="4-5")
    assert cpus(other) == "4-5"
    # A resize does not set the cpuset.
    for container in (owner, other):
        await runtime.update(container, quota=api.OptionalInt64(value=50_000))
    assert (cpus(owner), quota(owner)) == ("2-3", -1)
    assert (cpus(other), quota(other)) == ("4-5", 50_000)


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("configuration", ["[Plugin]\nMixed=yes\n[Pinning]\nMemoryNodes=local\n"])
async def test_owner_gets_local_memory_and_mixed_cpus(
    runtime: Runtime, pod: api.PodSandbox
) -> None:
    owner = await runtime.create(pod, "owner", {RESOURCE: "6-7"})
    assert cpus(owner) == "0-1,4-7"
    assert owner.linux.resources.cpu.mems == "1"


@pytest.mark.usefixtures("connected")
async def test_container_without_a_decision_gets_housekeeping_cpus(
    host: Host, runtime: Runtime
) -> None:
    """A cpuset that is no CPU list causes an unexpected exception."""
    odd = await runtime.create(runtime.run_pod("odd"), cpus="nonsense")
    assert cpus(odd) == "0-1,4-5"
    assert "internal error while pinning container main of pod default/odd" in host.log


@pytest.mark.parametrize("configuration", ["[Pinning]\nKeepOthersOff=no\n"])
async def test_others_are_not_changed_with_keep_others_off_no(
    other: api.Container, owner: api.Container
) -> None:
    assert cpus(other) == ""
    assert cpus(owner) == "2-3"
