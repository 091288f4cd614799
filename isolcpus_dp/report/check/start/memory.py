"""Refusals about the memory manager, its reservedMemory and its state file.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/memorymanager/memory_manager.go and
policy_static.go, state/state_checkpoint.go there, and
pkg/kubelet/apis/config/validation/validation_reserved_memory.go. The checksum of the state file is
not validated here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import values
from isolcpus_dp.report.check.start.rule import Rule, always

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

FILE = "memory_manager_state"
_DEFAULT_EVICTION = "100Mi"  # of memory.available; pkg/kubelet/eviction/defaults_linux.go


class Reserved(NamedTuple):
    """One amount of reservedMemory."""

    node: int
    resource: str
    amount: Fraction


class StateRefused(ValueError):
    """The kubelet cannot parse the state file; the message says what is wrong."""


def _policy_name(facts: Facts) -> str:
    return values.text(facts.settings, "memoryManagerPolicy", "None")


def reserved(facts: Facts) -> tuple[list[Reserved], str]:
    """The amounts of reservedMemory, and what is wrong with it; empty if nothing is."""
    value = facts.settings.get("reservedMemory")
    try:
        items = _of_flag(value) if isinstance(value, str) else _of_file(value)
        return [_amount(*item) for item in items], ""
    except values.ValueRefused as error:
        return [], str(error)


def _of_flag(value: str) -> list[tuple[str, str, str]]:
    """Node, resource and amount of `0:memory=1Gi,hugepages-2Mi=2Mi;1:memory=1Gi`.

    Raises ValueRefused.
    """
    found = []
    for part in (part for line in value.splitlines() for part in line.split(";")):
        node, _, limits = part.partition(":")
        for limit in limits.split(","):
            resource, equals, amount = limit.partition("=")
            if not equals:
                raise values.ValueRefused(f"--reserved-memory has '{part}'")
            found.append((node, resource, amount))
    return found


def _of_file(value: Any) -> list[tuple[str, str, str]]:
    """Node, resource and amount of a list in a file. Raises ValueRefused."""
    if not isinstance(value, (list, type(None))):
        raise values.ValueRefused("reservedMemory is not a list")
    found = []
    for part in value or []:
        limits = part.get("limits") if isinstance(part, dict) else None
        if not isinstance(limits, dict):
            raise values.ValueRefused("an item of reservedMemory has no limits")
        node = str(part.get("numaNode", 0))
        found += [(node, str(resource), str(amount)) for resource, amount in limits.items()]
    return found


def _amount(node: str, resource: str, text: str) -> Reserved:
    amount = values.quantity(text)
    if amount is None or not node.isdecimal():
        raise values.ValueRefused(f'reservedMemory has {resource}: "{text}" on node "{node}"')
    return Reserved(int(node), resource, amount)


def _sums(facts: Facts) -> dict[str, Fraction]:
    """By resource: the sum of reservedMemory over all nodes."""
    sums: dict[str, Fraction] = {}
    for item in reserved(facts)[0]:
        sums[item.resource] = sums.get(item.resource, Fraction(0)) + item.amount
    return sums


def _eviction(facts: Facts) -> Fraction | None:
    """The memory that evictionHard reserves; None if it is a share of all memory."""
    ignored = facts.settings.get("--experimental-allocatable-ignore-eviction")
    if ignored is not None and values.boolean(str(ignored)) is not False:
        return Fraction(0)
    text = values.pairs(facts.settings, "evictionHard").get("memory.available")
    if text is None:
        text = _default_eviction(facts.settings)
    if text is None:
        return None
    return Fraction(0) if text in ("0%", "100%") else values.quantity(text)


def _default_eviction(settings: Mapping[str, Any]) -> str | None:
    """memory.available if evictionHard does not have it; None if it is unknown.

    The kubelet adds the default to the file of --config, and then merges the drop-ins.
    """
    from_file = "--config" in settings or "--config-dir" not in settings
    given = settings.get("evictionHard")
    if given is None or settings.get("mergeDefaultEvictionSettings") is True:
        return _DEFAULT_EVICTION if from_file else "0"
    in_drop_in = isinstance(given, dict) and "--config-dir" in settings and from_file
    return None if in_drop_in else "0"


def needed(facts: Facts) -> Fraction | None:
    """The sum that `memory` in reservedMemory must have; None if it cannot be computed."""
    eviction = _eviction(facts)
    return None if eviction is None else eviction + facts.reservation("memory")


def amount_text(amount: Fraction) -> str:
    """An amount in Mi, or in bytes if it is not a multiple of it."""
    return f"{amount // 2**20}Mi" if amount % 2**20 == 0 else f"{float(amount):.0f}"


def _policy(facts: Facts) -> str:
    policy = _policy_name(facts)
    known = policy in ("None", "Static")
    return "" if known else f'the memory manager has no policy "{policy}" on Linux'


def _unsupported(facts: Facts) -> str:
    names = {item.resource for item in reserved(facts)[0]}
    wrong = sorted(name for name in names if name != "memory" and not name.startswith("hugepages-"))
    return f"reservedMemory has {', '.join(wrong)}" if wrong else ""


def _zero(facts: Facts) -> str:
    wrong = [item for item in reserved(facts)[0] if not item.amount]
    return f"reservedMemory has no {wrong[0].resource} on node {wrong[0].node}" if wrong else ""


def _duplicate(facts: Facts) -> str:
    named = [(item.node, item.resource) for item in reserved(facts)[0]]
    wrong = sorted({name for name in named if named.count(name) > 1})
    return f"reservedMemory has {wrong[0][1]} of node {wrong[0][0]} twice" if wrong else ""


def _static(facts: Facts) -> bool:
    return _policy_name(facts) == "Static" and not reserved(facts)[1]


def _missing_node(facts: Facts) -> str:
    nodes = {item.node for item in reserved(facts)[0]} - facts.nodes
    if not _static(facts) or not facts.nodes or not nodes:
        return ""
    return f"reservedMemory names NUMA node {render(nodes)}, which the host does not have"


def _other_sum(facts: Facts) -> str:
    memory = needed(facts)
    if not _static(facts) or memory is None:
        return ""
    # The kubelet has no setting that reserves huge pages, so their sum must be zero.
    expected = {"memory": memory}
    wrong = [
        f"{resource} in reservedMemory adds up to {amount_text(amount)}, not to"
        f" {amount_text(expected.get(resource, Fraction(0)))}"
        for resource, amount in sorted({"memory": Fraction(0), **_sums(facts)}.items())
        if amount != expected.get(resource, 0)
    ]
    return ", ".join(wrong)


def _sum_advice(facts: Facts) -> str:
    return (
        f"Reserve {amount_text(needed(facts) or Fraction(0))} of memory in reservedMemory, the sum"
        " of memory in systemReserved, kubeReserved and evictionHard (memory.available), and no"
        " huge pages."
    )


def _nothing(facts: Facts) -> str:
    if not _static(facts) or needed(facts) != 0 or _sums(facts).get("memory"):
        return ""
    return "the memory manager's policy is Static, and no memory is reserved"


def _state(facts: Facts) -> Mapping[str, Any]:
    """The fields of the state file; empty if it is missing. Raises StateRefused."""
    if facts.memory_state is None:
        return {}
    if not facts.memory_state:
        raise StateRefused("is empty, as after a power loss")
    try:
        document = json.loads(facts.memory_state)
    except (ValueError, RecursionError) as error:
        raise StateRefused("is not valid JSON") from error
    if not isinstance(document, dict):
        raise StateRefused("is not a JSON object")
    return {"policyName": "", **document}


def _content(facts: Facts) -> str:
    try:
        _state(facts)
    except StateRefused as error:
        return f"{FILE} {error}"
    return ""


def _read(facts: Facts) -> Mapping[str, Any]:
    try:
        return _state(facts)
    except StateRefused:
        return {}


def _other_policy(facts: Facts) -> str:
    saved, policy = _read(facts).get("policyName"), _policy_name(facts)
    if saved is None or saved == policy:
        return ""
    return f"the policy is {policy}, but {FILE} has policy {saved or '(none)'}"


def _machine_state(facts: Facts) -> dict[int, Mapping[str, Any]]:
    """By node: its `memory` in the state file; empty if the kubelet does not compare it."""
    state = _read(facts)
    nodes = state.get("machineState")
    if not _static(facts) or state.get("policyName") != "Static" or not isinstance(nodes, dict):
        return {}
    found: dict[int, Mapping[str, Any]] = {}
    for node, part in nodes.items():
        table = part.get("memoryMap") if isinstance(part, dict) else None
        memory = table.get("memory") if isinstance(table, dict) else None
        if str(node).isdecimal():
            found[int(node)] = memory if isinstance(memory, dict) else {}
    return found


def _other_nodes(facts: Facts) -> str:
    saved = _machine_state(facts).keys()
    if not saved or not facts.nodes or saved == facts.nodes:
        return ""
    return f"{FILE} is for NUMA node {render(saved)}, but the host has {render(facts.nodes)}"


def _other_memory(facts: Facts) -> str:
    wanted = {(item.node, item.resource): item.amount for item in reserved(facts)[0]}
    wrong = []
    for node, memory in _machine_state(facts).items():
        size = facts.node_memory.get(node)
        if size and memory.get("total", size) != size:
            wrong.append(f"{memory['total']} bytes on node {node}, but it has {size}")
        amount = wanted.get((node, "memory"), 0)
        if memory.get("systemReserved", amount) != amount:
            wrong.append(f"another reserved amount on node {node} than reservedMemory")
    return f"{FILE} has {', '.join(wrong)}" if wrong else ""


def _remove(facts: Facts) -> str:
    file = facts.directory / FILE
    return f"Drain the node, stop the kubelet, remove {file}, and start the kubelet."


_CORRECT = always("Correct reservedMemory: - {numaNode: 0, limits: {memory: 1Gi}} for each node.")

RULES = (
    Rule("", "an unknown memory manager policy", _policy, always("Use None or Static.")),
    Rule("", "reservedMemory that cannot be parsed", lambda facts: reserved(facts)[1], _CORRECT),
    Rule("", "reservedMemory of another resource than memory", _unsupported, _CORRECT),
    Rule("", "reservedMemory of zero", _zero, _CORRECT),
    Rule("", "reservedMemory that names a node and a resource twice", _duplicate, _CORRECT),
    Rule("", "reservedMemory of a node that does not exist", _missing_node, _CORRECT),
    Rule("", "reservedMemory that differs from what is reserved", _other_sum, _sum_advice),
    Rule("", "the policy Static without reserved memory", _nothing, _CORRECT),
    Rule("", f"{FILE} that is empty or cannot be parsed", _content, _remove),
    Rule("", f"{FILE} of another policy", _other_policy, _remove),
    Rule("", f"{FILE} with other NUMA nodes", _other_nodes, _remove),
    Rule("", f"{FILE} with other amounts of memory", _other_memory, _remove),
)
