"""`Change`: what to change so that the kubelet excludes the isolated CPUs, or places by NUMA node.

A change leads to no refusal that the settings did not have before; its sentence is the advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import advised, cpu_state, topology, values

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

# By word of enforceNodeAllocatable: the key that names the cgroup it needs.
CGROUPS = {
    f"{kind}{suffix}": key
    for kind, key in (
        ("system-reserved", "systemReservedCgroup"),
        ("kube-reserved", "kubeReservedCgroup"),
    )
    for suffix in ("", "-compressible")
}
_ENFORCED = "enforceNodeAllocatable"
_TOPOLOGY_OPTIONS = "topologyManagerPolicyOptions"


@dataclass(frozen=True)
class Change:
    """By key: the new value of a setting, None to remove it; and whether the state file must go."""

    settings: Mapping[str, Any]
    remove_cpu_state: bool = False


def follow(facts: Facts, change: Change) -> Facts:
    """The facts after the change; null removes a setting, or an entry of one."""
    merged = _without_null({**facts.settings, **change.settings})
    return replace(
        facts,
        settings={
            key: _without_null(value) if isinstance(value, dict) else value
            for key, value in merged.items()
        },
        cpu_state=None if change.remove_cpu_state else facts.cpu_state,
    )


def _without_null(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def reserve(facts: Facts) -> Change:
    """Reserves the isolated CPUs that are online."""
    wanted = advised.reserved_cpus(facts.machine, facts.reserved)
    settings: dict[str, Any] = {"reservedSystemCPUs": render(wanted)}
    # The kubelet accepts no cgroup for what is reserved together with reservedSystemCPUs.
    cgroups = sorted({key for key in CGROUPS.values() if values.text(facts.settings, key)})
    settings.update(dict.fromkeys(cgroups))
    words = values.words(facts.settings.get(_ENFORCED))
    if any(word in CGROUPS for word in words):
        settings[_ENFORCED] = [word for word in words if word not in CGROUPS] or ["pods"]
    return _with_state(facts, settings)


def reserve_advice(facts: Facts) -> str:
    """The sentences for reserve()."""
    change = reserve(facts)
    cpus = change.settings["reservedSystemCPUs"]
    sentence = f'Set in the kubelet\'s configuration: reservedSystemCPUs: "{cpus}"'
    if _ENFORCED in change.settings:
        sentence += f", {_ENFORCED}: [{', '.join(change.settings[_ENFORCED])}]"
    removed = [key for key, value in change.settings.items() if value is None]
    sentence += f"; remove {' and '.join(removed)}" if removed else ""
    if values.cpus(cpus) <= facts.machine.isolated:
        sentence += ", and add at least one housekeeping CPU for system processes"
    return f"{sentence}.{_removal(facts, change)}"


def strict(facts: Facts) -> Change:
    """Keeps the shared pool of the CPU manager off the reserved CPUs."""
    options = values.pairs(facts.settings, "cpuManagerPolicyOptions")
    return Change(
        {"cpuManagerPolicyOptions": advised.cpu_manager_options(options)}, remove_cpu_state=True
    )


def align(facts: Facts) -> Change:
    """Sets the topology manager's policy that the kubelet accepts on this machine."""
    policy, most = advised.topology_policy(facts.domains)
    options = topology.accepted_options(facts)
    if most:
        options[topology.MAX] = str(max(most, int(options.get(topology.MAX, most))))
    settings: dict[str, Any] = {"topologyManagerPolicy": policy}
    if options != values.pairs(facts.settings, _TOPOLOGY_OPTIONS):
        settings[_TOPOLOGY_OPTIONS] = options
    return Change(settings)


def align_advice(facts: Facts) -> str:
    """The sentence for align()."""
    change = align(facts)
    options = change.settings.get(_TOPOLOGY_OPTIONS)
    # The option excludes the strictest policy, single-numa-node.
    by_socket = values.pairs(facts.settings, "cpuManagerPolicyOptions").get("align-by-socket", "")
    stricter = "restricted" if values.boolean(by_socket) else "a stricter policy"
    sentence = (
        "Set in the kubelet's configuration: topologyManagerPolicy:"
        f" {change.settings['topologyManagerPolicy']}, or {stricter}"
    )
    if options is not None:
        sentence += f"; and {_TOPOLOGY_OPTIONS}: {mapping(options)}"
    if options and topology.MAX in options:
        sentence += " (Kubernetes 1.31 and newer)"
    return f"{sentence}."


def mapping(options: Mapping[str, str]) -> str:
    """Options as in the kubelet's configuration, where all values are texts."""
    return "{" + ", ".join(f'{name}: "{value}"' for name, value in options.items()) + "}"


def _with_state(facts: Facts, settings: Mapping[str, Any]) -> Change:
    """The change; with it, the state file must go if the kubelet would refuse it."""
    after = follow(facts, Change(settings))
    return Change(settings, any(rule.evidence(after) for rule in cpu_state.RULES))


def _removal(facts: Facts, change: Change) -> str:
    return f" {cpu_state.remove(facts)}" if change.remove_cpu_state else ""
