"""Compares the books with what runs: manifests, the kubelet's checkpoint, cpusets of containers.

Everything here is a plain function; `look` reads the guest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from isolcpus_dp.host import cpulist
from tests.vm.soak.manifest import Pod

CPUs = frozenset[int]


@dataclass(frozen=True)
class Rules:
    """What the configuration in force says about containers."""

    keep_others_off: bool = True
    mixed: bool = False


@dataclass(frozen=True)
class Container:
    """A container that runs: the cpuset of its cgroup, and the allowed CPUs of each thread."""

    pod: str
    name: str
    cpuset: CPUs
    allowed: tuple[CPUs, ...]


@dataclass(frozen=True)
class View:
    """The guest at one moment."""

    cpus: CPUs
    isolated: CPUs
    online: CPUs
    healthy: CPUs  # the devices that the kubelet counts as allocatable
    held: Mapping[str, CPUs]  # by pod: its devices in the kubelet's checkpoint
    phases: Mapping[str, str]  # by pod, as the kubelet says
    manifests: Mapping[str, Pod]
    sandboxes: tuple[str, ...]  # the names of their pods
    containers: tuple[Container, ...]
    pins: bool  # whether the pinning daemon is connected to the runtime
    guaranteed: CPUs = field(default=frozenset(range(4)))


def wrong(view: View, rules: Rules) -> list[str]:
    """What does not fit, as sentences; empty if everything does."""
    found = [*_services(view), *_pods(view), *_devices(view)]
    return found or [*_containers(view, rules)]


def _services(view: View) -> Iterator[str]:
    if not view.pins:
        yield "the pinning daemon is not connected to the runtime"
    should = view.isolated & view.online
    if view.healthy != should:
        yield f"allocatable is {render(view.healthy)}, and should be {render(should)}"


def _pods(view: View) -> Iterator[str]:
    for name in sorted(view.manifests.keys() - view.phases.keys()):
        yield f"the kubelet does not know pod {name}"
    for name, phase in sorted(view.phases.items()):
        if phase != "Running" and not (phase.startswith("Failed") and name in view.manifests):
            yield f"pod {name} is {phase}"
    run = [name for name in view.manifests if view.phases.get(name) == "Running"]
    for name in sorted((Counter(view.sandboxes) - Counter(run)).elements()):
        yield f"a sandbox of pod {name} exists, and should not"
    running = Counter((one.pod, one.name) for one in view.containers)
    should = Counter(
        (name, container) for name in run for container in view.manifests[name].container_names
    )
    for pod_name, container in sorted((running - should).elements()):
        yield f"container {container} of pod {pod_name} runs, and should not"
    for pod_name, container in sorted((should - running).elements()):
        yield f"container {container} of pod {pod_name} does not run"


def _devices(view: View) -> Iterator[str]:
    owners = {cpu: [pod for pod, cpus in view.held.items() if cpu in cpus] for cpu in view.cpus}
    for cpu, pods in sorted(owners.items()):
        if len(pods) > 1:
            yield f"CPU {cpu} has the owners {', '.join(sorted(pods))}"
        if pods and cpu not in view.isolated:
            yield f"CPU {cpu} of pod {pods[0]} is not isolated"
    for name in sorted(view.held.keys() - view.manifests.keys()):
        yield f"pod {name} is gone, and holds CPU {render(view.held[name])}"
    for name, pod in sorted(view.manifests.items()):
        size = pod.devices if view.phases.get(name) == "Running" else 0
        held = view.held.get(name, frozenset())
        if len(held) != size:
            yield f"pod {name} requests {size} CPUs, and holds {render(held)}"


def _containers(view: View, rules: Rules) -> Iterator[str]:
    for one in view.containers:
        should = expected(view, rules, one) & view.online
        # An empty cpuset is that of a container to which nobody has given one: it is no limit.
        if (one.cpuset or view.cpus) & view.online != should:
            yield (
                f"the cpuset of container {one.name} of pod {one.pod} is {render(one.cpuset)},"
                f" and should be {render(should)}"
            )
        for cpus in {*one.allowed} - {should}:
            yield (
                f"a thread of container {one.name} of pod {one.pod} may run on CPU {render(cpus)},"
                f" and should run on {render(should)}"
            )


def expected(view: View, rules: Rules, container: Container) -> CPUs:
    """The CPUs of a container, online or not."""
    pod = view.manifests[container.pod]
    housekeeping = view.cpus - view.isolated
    if container.name == "main" and pod.devices:
        own = view.held[pod.name]
        if not own & view.online:
            return housekeeping
        return own | housekeeping if rules.mixed else own
    asked = view.guaranteed if pod.kind == "guaranteed" else view.cpus
    return asked & housekeeping if rules.keep_others_off else asked


def differences(status: Mapping[str, Any], view: View) -> list[str]:
    """What `isolcpus-dp status --json` says otherwise than the checkpoint, as sentences."""
    [pool] = status["pools"]
    listed = {one["pod"]: one["cpus"] for one in status["allocations"]}
    held = frozenset().union(*view.held.values())
    expectations = {
        "registered": (status["registered"], True),
        "allocations": (listed, {pod: render(cpus) for pod, cpus in view.held.items()}),
        "isolated CPUs": (pool["cpus"]["isolated"], render(view.isolated)),
        "healthy CPUs": (pool["cpus"]["healthy"], render(view.healthy)),
        "allocated CPUs": (pool["cpus"]["allocated"], render(held)),
        "free CPUs": (pool["cpus"]["free"], render(view.healthy - held)),
        "devices not in the pool": (pool["unknown"], []),
    }
    return [
        f"status says {what}: {says}, and it should be {should}"
        for what, (says, should) in expectations.items()
        if says != should
    ]


def render(cpus: CPUs) -> str:
    return cpulist.render(cpus)
