"""Refusals about the memory manager's state file, memory_manager_state.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/memorymanager/state/state_checkpoint.go and
validateState in policy_static.go. The checksum and the memory of containers are not validated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import memory, values
from isolcpus_dp.report.check.start.rule import Rule

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

FILE = "memory_manager_state"


class StateRefused(ValueError):
    """The kubelet cannot parse the file; the message says what is wrong."""


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
    saved, policy = _read(facts).get("policyName"), memory.policy_name(facts)
    if saved is None or saved == policy:
        return ""
    return f"the policy is {policy}, but {FILE} has policy {saved or '(none)'}"


def _machine_state(facts: Facts) -> dict[int, Mapping[str, Any]]:
    """By node: its table of memory in the state file; empty if the kubelet does not compare it."""
    state = _read(facts)
    nodes = state.get("machineState")
    if not memory.is_static(facts) or state.get("policyName") != "Static":
        return {}
    found: dict[int, Mapping[str, Any]] = {}
    for node, part in nodes.items() if isinstance(nodes, dict) else ():
        table = part.get("memoryMap") if isinstance(part, dict) else None
        if values.is_number(node):
            found[int(node)] = table if isinstance(table, dict) else {}
    return found


def _other_nodes(facts: Facts) -> str:
    saved = _machine_state(facts).keys()
    if not saved or not facts.nodes or saved == facts.nodes:
        return ""
    return f"{FILE} is for NUMA node {render(saved)}, but the host has {render(facts.nodes)}"


def _other_memory(facts: Facts) -> str:
    wanted = {(item.node, item.resource): item.amount for item in memory.reserved(facts)[0]}
    wrong = []
    for node, table in _machine_state(facts).items():
        part = table.get("memory")
        saved = part if isinstance(part, dict) else {}
        size = facts.node_memory.get(node)
        if size and saved.get("total", size) != size:
            wrong.append(f"{saved['total']} bytes on node {node}, but it has {size}")
        amount = wanted.get((node, "memory"), 0)
        if saved.get("systemReserved", amount) != amount:
            wrong.append(f"another reserved amount on node {node} than reservedMemory")
    return f"{FILE} has {', '.join(wrong)}" if wrong else ""


def _other_pages(facts: Facts) -> str:
    wrong = []
    for node, table in _machine_state(facts).items():
        now = facts.huge_pages.get(node)
        saved = {
            name: part.get("total") if isinstance(part, dict) else None
            for name, part in table.items()
            if name != "memory"
        }
        if now is not None and saved != now:
            # Values that are saved may be of any type.
            names = sorted({*saved, *now})
            sizes = ", ".join(
                name
                for name in names
                if name not in saved or name not in now or saved[name] != now[name]
            )
            wrong.append(f"another amount of {sizes} on node {node} than the host")
    return f"{FILE} has {', '.join(wrong)}" if wrong else ""


def _remove(facts: Facts) -> str:
    file = facts.directory / FILE
    return f"Drain the node, stop the kubelet, remove {file}, and start the kubelet."


RULES = tuple(
    Rule("", refused, evidence, _remove)
    for refused, evidence in (
        (f"{FILE} that is empty or cannot be parsed", _content),
        (f"{FILE} of another policy", _other_policy),
        (f"{FILE} with other NUMA nodes", _other_nodes),
        (f"{FILE} with other amounts of memory", _other_memory),
        (f"{FILE} with other huge pages", _other_pages),
    )
)
