"""Messages of NRI about one container: the changes to its settings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import cpulist

if TYPE_CHECKING:
    from isolcpus_dp.nri.pinning import Decision, Rules


class Update(NamedTuple):
    """An update of a container outside the runtime's own calls for it."""

    message: api.ContainerUpdate
    pod: str  # namespace and name
    container: str  # name
    confirms: bool = True  # whether its success leaves no setting of the container in doubt


def difference(decision: Decision, cpu: api.LinuxCPU) -> api.LinuxResources | None:
    """The changes to the settings that a container has or will get; None if there are none."""
    changes = api.LinuxCPU()
    if decision.cpus is not None and cpulist.render(decision.cpus) != cpu.cpus:
        changes.cpus = cpulist.render(decision.cpus)
    if decision.mems is not None and cpulist.render(decision.mems) != cpu.mems:
        changes.mems = cpulist.render(decision.mems)
    if decision.unlimited and cpu.quota.value > 0:
        changes.quota.value = -1
    return api.LinuxResources(cpu=changes) if changes.ByteSize() else None


def repeatable(cpu: api.LinuxCPU, rules: Rules) -> api.LinuxCPU:
    """The settings in the runtime's record, as far as an update can set them again."""
    settings = api.LinuxCPU(mems=cpu.mems)
    with contextlib.suppress(ValueError):  # not a CPU list: the decision replaces it
        settings.cpus = cpulist.render(cpulist.parse(cpu.cpus) & rules.nameable)
    if cpu.quota.value:
        settings.quota.value = cpu.quota.value
    if cpu.quota.value > 0 and cpu.period.value:
        settings.period.value = cpu.period.value
    return settings


def pod_name(pod: api.PodSandbox) -> str:
    """Namespace and name of a pod, as they are logged."""
    return f"{pod.namespace}/{pod.name}"


def update_of(container: api.Container, resources: api.LinuxResources) -> api.ContainerUpdate:
    """The message that changes these settings of a container."""
    return api.ContainerUpdate(
        container_id=container.id,
        linux=api.LinuxContainerUpdate(resources=resources),
        # The runtime logs a failed update; without this it would close the connection.
        ignore_failure=True,
    )
