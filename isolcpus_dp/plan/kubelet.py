"""The kubelet's configuration, as a drop-in of its --config-dir.

The values are those that `check` advises. None leads to a refusal of the kubelet that the host did
not have before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import files
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.kubelet import paths
from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check.start import advised, change, cpu_state, table, topology, values

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target
    from isolcpus_dp.plan.survey import Known
    from isolcpus_dp.report.check.start.change import Change
    from isolcpus_dp.report.check.start.facts import Facts

DROP_IN = "90-isolcpus-dp.conf"
_USUAL = PurePosixPath("/etc/kubernetes/kubelet.conf.d")
# All files that the part may ever write, but for those in directories that the kubelet's command
# line names: which one an earlier kubelet had is not known.
PATHS = (_USUAL / DROP_IN,)
# The versions since which the kubelet knows the flag, the option, and another option.
_CONFIG_DIR, _STRICT, _MAX_NODES = (1, 30), (1, 33), (1, 31)
_CPU_OPTIONS, _TOPOLOGY_OPTIONS = "cpuManagerPolicyOptions", "topologyManagerPolicyOptions"
# By flag: the key that it overrides.
_FLAGS = {
    "reserved-cpus": "reservedSystemCPUs",
    "cpu-manager-policy": "cpuManagerPolicy",
    "cpu-manager-policy-options": _CPU_OPTIONS,
    "topology-manager-policy": "topologyManagerPolicy",
    "topology-manager-policy-options": _TOPOLOGY_OPTIONS,
    "system-reserved-cgroup": "systemReservedCgroup",
    "kube-reserved-cgroup": "kubeReservedCgroup",
    "enforce-node-allocatable": "enforceNodeAllocatable",
}
_STRICTER = ("restricted", "single-numa-node")


@dataclass(frozen=True)
class Kubelet:
    """What is known about the host's kubelet."""

    facts: Facts  # its settings are those without the file that the plan writes
    # Whether it is installed; None: not known, and neither are its settings.
    installed: bool | None = True
    flags: Mapping[str, str] | None = None  # None: its command line is not known
    version: tuple[int, int] | None = None
    unit: str = "kubelet"
    present: Mapping[str, Any] | None = None  # its settings now, with the file; None: not known
    unseen: str = ""  # why a kubelet's settings are not known, although it is set up


def part(goal: Goal, target: Target, kubelet: Kubelet) -> Part:
    """The part: one file, and what else the kubelet needs to use it."""
    planned, directory = _planned(goal, kubelet), _directory(kubelet)
    commands: tuple[str, ...] = ()
    if planned.remove_cpu_state or kubelet.installed is None:
        state = paths.cpu_manager_state(kubelet.facts.directory)
        commands = (f"systemctl stop {kubelet.unit}", f"rm -f {state}")
    return Part(
        "kubelet",
        "The kubelet neither counts the isolated CPUs as cpu nor lets other containers use them.",
        (File(directory / DROP_IN, _document(planned.settings)),),
        commands,
        tuple(_notes(target, kubelet, directory, planned)),
    )


def differences(goal: Goal, known: Known, root: Path) -> Iterator[str]:
    """Why the kubelet does not use the file, although it is as planned, as sentences."""
    kubelet = known.kubelet
    if kubelet.unseen:
        yield f"the kubelet's settings are not known: {kubelet.unseen}"
    if not kubelet.installed:
        return
    planned, directory = _planned(goal, kubelet), _directory(kubelet)
    if kubelet.flags is None:
        yield f"no kubelet is running: whether it reads {directory / DROP_IN} is not known"
    else:
        yield from _unused(known.target, kubelet, planned, directory, root)
    if planned.remove_cpu_state:
        state = paths.cpu_manager_state(kubelet.facts.directory)
        yield (
            f"with {state} and the planned settings, the kubelet does not start: drain the node,"
            f" run systemctl stop {kubelet.unit} and rm -f {state}, and reboot"
        )


def _unused(
    target: Target, kubelet: Kubelet, planned: Change, directory: PurePosixPath, root: Path
) -> Iterator[str]:
    """Which of the settings do not reach the kubelet, and what to do."""
    path = directory / DROP_IN
    flags = kubelet.flags or {}
    lacking = _lacking(kubelet.facts.settings, planned.settings)
    overriding = {flag: key for flag, key in _FLAGS.items() if flag in flags and key in lacking}
    if overriding:
        yield (
            f"the kubelet's command line has {' and '.join(f'--{flag}' for flag in overriding)},"
            f" which overrides {path}: remove it there"
        )
    left = [key for key in lacking if key not in overriding.values()]
    if left and not flags.get("config-dir"):
        [how] = _how_to_read(target, kubelet, directory)
        yield (
            f"the kubelet does not read {path}, and has another {' and '.join(left)}:"
            f" {how[0].lower()}{how[1:-1]}"
        )
    elif (
        kubelet.present is not None
        and files.text(root / str(path).lstrip("/")) == _document(planned.settings).strip()
    ):
        now = _lacking(kubelet.present, {key: planned.settings[key] for key in left})
        if now:
            yield f"a later file in {directory} overrides {' and '.join(now)}: remove it there"


def _lacking(present: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    """The keys whose planned value the kubelet does not have."""
    return [key for key, value in planned.items() if not _has(present, key, value)]


def _has(present: Mapping[str, Any], key: str, value: Any) -> bool:
    if isinstance(value, Mapping):
        wanted = {name: one for name, one in value.items() if one is not None}
        return values.pairs(present, key) == wanted
    if isinstance(value, list):
        return values.words(present.get(key)) == value
    if key == "reservedSystemCPUs":
        with contextlib.suppress(values.ValueRefused):
            return values.cpus(values.text(present, key)) == values.cpus(value)
    default = "none" if key.endswith("Policy") else ""
    return values.text(present, key, default) == (value or default)


def _planned(goal: Goal, kubelet: Kubelet) -> Change:
    """What the file changes, as far as it is known what there is."""
    machine = replace(goal.machine, isolated=goal.isolated)
    system = _system_cpus(goal, kubelet.facts)
    settings = {**kubelet.facts.settings, "reservedSystemCPUs": render(system)}
    return _change(replace(kubelet.facts, machine=machine, settings=settings), kubelet)


def _directory(kubelet: Kubelet) -> PurePosixPath:
    """Where the file is: in the directory of --config-dir, or in the one to name there."""
    return PurePosixPath((kubelet.flags or {}).get("config-dir") or _USUAL)


def _system_cpus(goal: Goal, facts: Facts) -> frozenset[int]:
    """The housekeeping CPUs that are reserved for the system, as far as they are online.

    Those that are reserved now; otherwise the core of CPU 0, if pods still have another core.
    """
    housekeeping = goal.housekeeping & goal.machine.online
    reserved = (facts.reserved - facts.machine.isolated) & housekeeping
    if reserved:
        return reserved
    first = goal.machine.cpus[min(housekeeping or goal.housekeeping)].siblings & housekeeping
    return first if housekeeping - first else frozenset()


def _change(before: Facts, kubelet: Kubelet) -> Change:
    """All settings of the drop-in."""
    settings = dict(change.reserve(before).settings)
    settings["cpuManagerPolicy"] = "static"
    # The kubelet validates no options of another policy.
    present = values.pairs(before.settings, _CPU_OPTIONS)
    options = present if before.cpu_policy == "static" else {}
    if _at_least(kubelet, _STRICT):
        options = advised.cpu_manager_options(options)
    settings.update(_merging(before, _CPU_OPTIONS, options))
    settings.update(_alignment(before, kubelet))
    following = change.follow(before, change.Change(settings))
    refused = any(rule.evidence(following) for rule in cpu_state.RULES)
    return change.Change(settings, remove_cpu_state=refused)


def _alignment(before: Facts, kubelet: Kubelet) -> Mapping[str, Any]:
    """The topology manager's settings, where several NUMA nodes have CPUs."""
    nodes = {cpu.node for cpu in before.machine.cpus.values() if cpu.node is not None}
    refused = table.refused(before, "topology-manager")
    if not refused and (len(nodes) < 2 or before.topology_policy in _STRICTER):
        return {}
    settings = change.align(before).settings
    options = settings.get(_TOPOLOGY_OPTIONS, {})
    if topology.MAX in options and not _at_least(kubelet, _MAX_NODES):
        return {"topologyManagerPolicy": "none"}
    if _TOPOLOGY_OPTIONS not in settings:
        return settings
    return {**settings, **_merging(before, _TOPOLOGY_OPTIONS, options)}


def _merging(before: Facts, key: str, options: Mapping[str, str]) -> dict[str, Any]:
    """The setting that leads to exactly these options: the kubelet merges them with its own."""
    removed = dict.fromkeys(values.pairs(before.settings, key).keys() - options.keys())
    found = {**options, **dict(sorted(removed.items()))}
    return {key: found} if found else {}


def _at_least(kubelet: Kubelet, version: tuple[int, int]) -> bool:
    """Whether the kubelet has this version; a kubelet of an unknown version does."""
    return kubelet.version is None or kubelet.version >= version


_HEAD = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}


def _document(settings: Mapping[str, Any]) -> str:
    """The drop-in as YAML; null removes a setting of the main file (RFC 7386)."""
    lines = [f"# {MARK}"]
    for name, value in {**_HEAD, **settings}.items():
        if isinstance(value, Mapping):
            lines.append(f"{name}:")
            lines += [f"  {option}: {json.dumps(one)}" for option, one in value.items()]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "\n".join([*lines, ""])


def _notes(
    target: Target, kubelet: Kubelet, directory: PurePosixPath, planned: Change
) -> Iterable[str]:
    if kubelet.version is None:
        yield (
            "The version of the kubelet is not known here: strict-cpu-reservation needs Kubernetes"
            " 1.33 or newer."
        )
    elif not _at_least(kubelet, _STRICT):
        yield (
            "strict-cpu-reservation needs Kubernetes 1.33 and is left out: isolcpus-dp-pin keeps"
            " other containers off the isolated CPUs."
        )
    yield from _how_to_read(target, kubelet, directory)
    overriding = [
        f"--{flag}"
        for flag, key in _FLAGS.items()
        if flag in (kubelet.flags or {}) and key in planned.settings
    ]
    if overriding:
        yield (
            f"The kubelet's command line has {' and '.join(overriding)}, which overrides the file:"
            " remove it there."
        )
    if planned.remove_cpu_state or kubelet.installed is None:
        yield (
            "Drain the node before the kubelet is stopped and its state file is removed: with the"
            " file of another policy or of other CPUs, it does not start."
        )


def _how_to_read(target: Target, kubelet: Kubelet, directory: PurePosixPath) -> Iterable[str]:
    """How the kubelet is told to read the drop-in, unless it does so already."""
    if not _at_least(kubelet, _CONFIG_DIR):
        yield (
            "This kubelet has no --config-dir (Kubernetes 1.30 and newer): copy the settings of the"
            f" file to its configuration, {paths.configuration(kubelet.facts.directory)}."
        )
        return
    if (kubelet.flags or {}).get("config-dir"):
        return
    flag = f"--config-dir={directory}"
    if kubelet.unit.startswith(("k3s", "rke2")):
        name = kubelet.unit.partition("-")[0]
        yield (
            f'Add to /etc/rancher/{name}/config.yaml: kubelet-arg: ["config-dir={directory}"], so'
            " that the kubelet reads the file."
        )
    elif "microk8s" in kubelet.unit:
        yield (
            f"Add the line {flag} to /var/snap/microk8s/current/args/kubelet, so that the kubelet"
            " reads the file."
        )
    else:
        file = "/etc/sysconfig/kubelet" if target.distribution == "el" else "/etc/default/kubelet"
        yield (
            f"Set KUBELET_EXTRA_ARGS={flag} in {file} (kubeadm), or add {flag} to ExecStart= of"
            f" {kubelet.unit}.service, so that the kubelet reads the file."
        )
