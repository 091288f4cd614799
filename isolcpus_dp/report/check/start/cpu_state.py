"""Refusals about the CPU manager's state file, cpu_manager_state.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/cpumanager/state/state_checkpoint.go and
checkpoint.go, and validateState in policy_static.go. The kubelet reads the file with every policy;
it compares the CPUs in it with the machine's only with the policy static.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import values
from isolcpus_dp.report.check.start.rule import Rule

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

FILE = "cpu_manager_state"


@dataclass(frozen=True)
class State:
    """The content of the file. `entries` has the CPUs of each container."""

    policy: str
    shared: frozenset[int]
    entries: tuple[frozenset[int], ...]
    assigned: bool  # whether it lists a pod
    complete: bool  # False if it lists CPUs of pods, which only some kubelets read
    checksum: int
    expected: int

    @property
    def given(self) -> frozenset[int]:
        """The CPUs that containers have exclusively."""
        return frozenset().union(*self.entries)


class StateRefused(ValueError):
    """The kubelet cannot parse the file; the message says what is wrong."""


def parse(text: str) -> State:
    """The content of the file. Raises StateRefused.

    The entries are by pod, then by container; before Kubernetes 1.18, by container only.
    """
    fields = _fields(text)
    policy, shared = fields.get("policyname", ""), fields.get("defaultcpuset", "")
    entries, checksum = fields.get("entries", {}), fields.get("checksum", 0)
    if not isinstance(policy, str) or not isinstance(shared, str) or not isinstance(entries, dict):
        raise StateRefused("has a value of another type")
    if type(checksum) is not int or checksum < 0:  # a bool is an int in Python
        raise StateRefused("has a checksum that is not a number")
    pods = {pod: part for pod, part in entries.items() if part is not None}
    containers = [
        cpus for pod in pods.values() for cpus in (pod.values() if isinstance(pod, dict) else [pod])
    ]
    if not all(isinstance(cpus, str) for cpus in containers) or (
        len({isinstance(pod, dict) for pod in pods.values()}) > 1
    ):
        raise StateRefused("has entries of another type")
    try:
        return State(
            policy=policy,
            shared=values.cpus(shared),
            entries=tuple(values.cpus(cpus) for cpus in containers),
            assigned=bool(pods),
            complete=not fields.get("podentries"),
            checksum=checksum,
            expected=_checksum(policy, shared, pods),
        )
    except values.ValueRefused as error:
        raise StateRefused(f"has an invalid CPU list: {error}") from error


def _fields(text: str) -> Mapping[str, Any]:
    """The fields by name in lower case, as Go ignores the case."""
    if not text:
        raise StateRefused("is empty, as after a power loss")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateRefused("is not valid JSON") from error
    if not isinstance(document, dict):
        raise StateRefused("is not a JSON object")
    return {name.lower(): value for name, value in document.items() if value is not None}


def _checksum(policy: str, shared: str, entries: Mapping[str, Any]) -> int:
    """The checksum that the kubelet computes: FNV-1a of 32 bits over a dump of Go's structure."""
    kind, dumped = "map[string]map[string]string", []
    for name, part in sorted(entries.items()):
        if isinstance(part, dict):
            inner = " ".join(f"{container}:{cpus}" for container, cpus in sorted(part.items()))
            dumped.append(f"{name}:map[{inner}]")
        else:
            kind = "map[string]string"
            dumped.append(f"{name}:{part}")
    dump = (
        f"(*state.CPUManagerCheckpoint){{PolicyName:(string){policy} DefaultCPUSet:(string){shared}"
        f" Entries:({kind})map[{' '.join(dumped)}] Checksum:(checksum.Checksum)0}}"
    )
    value = 0x811C9DC5
    for byte in dump.encode("utf-8", "surrogatepass"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def read(facts: Facts) -> State | None:
    """The content of the file; None if it is missing or the kubelet refuses it."""
    try:
        return parse(facts.cpu_state) if facts.cpu_state is not None else None
    except StateRefused:
        return None


def _static(facts: Facts) -> State | None:
    """The state that the policy static validates; None for another policy."""
    state = read(facts) if facts.cpu_policy == "static" else None
    return state if state and state.policy == "static" else None


def _content(facts: Facts) -> str:
    try:
        if facts.cpu_state is not None:
            parse(facts.cpu_state)
    except StateRefused as error:
        return f"{FILE} {error}"
    return ""


def _policy(facts: Facts) -> str:
    state = read(facts)
    if state is None or state.policy == facts.cpu_policy:
        return ""
    return f"the policy is {facts.cpu_policy}, but {FILE} has policy {state.policy or '(none)'}"


def _checksum_differs(facts: Facts) -> str:
    state = read(facts)
    # The kubelet accepts a file without a checksum.
    if state is None or not state.complete or state.checksum in (0, state.expected):
        return ""
    return f"the checksum of {FILE} is wrong"


def _no_shared(facts: Facts) -> str:
    state = _static(facts)
    wrong = state and state.assigned and not state.shared
    return f"{FILE} has containers, and no CPUs for all others" if wrong else ""


def _reserved_shared(facts: Facts) -> str:
    state = _static(facts)
    shared = facts.reserved & state.shared if state and facts.strict else frozenset()
    if not shared:
        return ""
    return f"strict-cpu-reservation is set, and {FILE} shares the reserved CPU {render(shared)}"


def _reserved_missing(facts: Facts) -> str:
    state = _static(facts)
    if state is None or facts.strict or not state.shared:
        return ""
    missing = (facts.reserved & facts.online) - state.shared
    return f"{FILE} does not share the reserved CPU {render(missing)}" if missing else ""


def _overlap(facts: Facts) -> str:
    state = _static(facts)
    both = state.shared & state.given if state else frozenset()
    return f"{FILE} both shares and assigns CPU {render(both)}" if both else ""


def _other_cpus(facts: Facts) -> str:
    state = _static(facts)
    if state is None or not state.shared or not state.complete:
        return ""
    if facts.strict and not facts.reserved:
        return ""  # the kubelet selects the reserved CPUs
    known = state.shared | state.given
    expected = facts.online - facts.reserved if facts.strict else facts.online
    if known == expected:
        return ""
    return f"{FILE} is for CPU {render(known)}, but the kubelet expects CPU {render(expected)}"


def remove(facts: Facts) -> str:
    """How to remove the file."""
    file = facts.directory / FILE
    return f"Drain the node, stop the kubelet, remove {file}, and start the kubelet."


RULES = tuple(
    Rule("cpu-manager", refused, evidence, remove)
    for refused, evidence in (
        (f"{FILE} that is empty or cannot be parsed", _content),
        (f"{FILE} of another policy", _policy),
        (f"{FILE} with a wrong checksum", _checksum_differs),
        (f"{FILE} with containers, but without shared CPUs", _no_shared),
        (f"{FILE} that shares strictly reserved CPUs", _reserved_shared),
        (f"{FILE} that does not share all reserved CPUs", _reserved_missing),
        (f"{FILE} that shares CPUs of a container", _overlap),
        (f"{FILE} with other CPUs than the online ones", _other_cpus),
    )
)
