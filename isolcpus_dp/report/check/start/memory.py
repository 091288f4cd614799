"""Refusals about reserved memory: evictionHard, the memory manager and its reservedMemory.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/memorymanager/memory_manager.go and
policy_static.go, pkg/kubelet/apis/config/validation/validation_reserved_memory.go,
pkg/kubelet/eviction/helpers.go, and validateNodeAllocatable in
pkg/kubelet/cm/node_container_manager_linux.go.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import values
from isolcpus_dp.report.check.start.rule import QUOTE, Rule, always, not_text

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

_PERCENTAGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)%")
_AVAILABLE = "memory.available"


class Reserved(NamedTuple):
    """One amount of reservedMemory."""

    node: int
    resource: str
    amount: Fraction


def policy_name(facts: Facts) -> str:
    """The memory manager's policy."""
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
        limits = part.get("limits") or {} if isinstance(part, dict) else None
        if not isinstance(limits, dict):
            raise values.ValueRefused("an item of reservedMemory is not a mapping")
        node = str(part.get("numaNode", 0))
        found += [(node, str(resource), str(amount).strip()) for resource, amount in limits.items()]
    return found


def _amount(node: str, resource: str, text: str) -> Reserved:
    amount = values.quantity(text)
    if amount is None or not values.is_number(node):
        raise values.ValueRefused(f'reservedMemory has {resource}: "{text}" on node "{node}"')
    return Reserved(int(node), resource, amount)


def _sums(facts: Facts) -> dict[str, Fraction]:
    """By resource: the sum of reservedMemory over all nodes."""
    sums: dict[str, Fraction] = {}
    for item in reserved(facts)[0]:
        sums[item.resource] = sums.get(item.resource, Fraction(0)) + item.amount
    return sums


def _eviction(facts: Facts) -> Fraction | None:
    """The memory that evictionHard reserves; None if it is not valid or cannot be computed."""
    ignored = facts.settings.get("--experimental-allocatable-ignore-eviction")
    if ignored is not None and values.boolean(str(ignored)) is not False:
        return Fraction(0)
    text = values.pairs(facts.settings, "evictionHard").get(_AVAILABLE)
    if text is None or text in ("0%", "100%"):
        return Fraction(0)
    if _threshold(facts):
        return None
    share = _share(text)
    if share is None:
        return values.quantity(text)
    return Fraction(int(facts.memory * share)) if facts.memory else None


def _share(text: str) -> float | None:
    """A percentage as a share; None for another text. The kubelet computes with 32 bits."""
    match = _PERCENTAGE.fullmatch(text)
    return _float32(_float32(float(match[1])) / 100) if match else None


def _float32(number: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def needed(facts: Facts) -> Fraction | None:
    """The sum that `memory` in reservedMemory must have; None if it cannot be computed."""
    eviction = _eviction(facts)
    return None if eviction is None else eviction + facts.reservation("memory")


def amount_text(amount: Fraction) -> str:
    """An amount in Mi, or in bytes if it is not a multiple of it."""
    return f"{amount // 2**20}Mi" if amount % 2**20 == 0 else f"{float(amount):.0f}"


def _threshold(facts: Facts) -> str:
    text = values.pairs(facts.settings, "evictionHard").get(_AVAILABLE)
    if text is None:
        return ""
    share, amount = _share(text), values.quantity(text)
    valid = share <= 1 if share is not None else amount is not None and amount > 0
    return "" if valid else f'{_AVAILABLE} in evictionHard is "{text}"'


def _more_memory(facts: Facts) -> str:
    if not facts.memory or (needed(facts) or 0) <= facts.memory:
        return ""
    return "more memory is reserved than the host has"


def _policy(facts: Facts) -> str:
    policy = policy_name(facts)
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


def is_static(facts: Facts) -> bool:
    """Whether the policy is Static, and the kubelet can parse reservedMemory."""
    return policy_name(facts) == "Static" and not reserved(facts)[1]


def _missing_node(facts: Facts) -> str:
    nodes = {item.node for item in reserved(facts)[0]} - facts.nodes
    if not is_static(facts) or not facts.nodes or not nodes:
        return ""
    return f"reservedMemory names NUMA node {render(nodes)}, which the host does not have"


def _other_sum(facts: Facts) -> str:
    memory = needed(facts)
    if not is_static(facts) or memory is None:
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
    if not is_static(facts) or needed(facts) != 0 or _sums(facts).get("memory"):
        return ""
    return "the memory manager's policy is Static, and no memory is reserved"


_CORRECT = always("Correct reservedMemory: - {numaNode: 0, limits: {memory: 1Gi}} for each node.")

RULES = (
    Rule("", "evictionHard with a value that is not a text", not_text("evictionHard"), QUOTE),
    Rule(
        "",
        f"{_AVAILABLE} in evictionHard that is not an amount of memory",
        _threshold,
        always(f"Set {_AVAILABLE} in evictionHard to an amount or a share: 100Mi or 5%."),
    ),
    Rule(
        "",
        "more memory reserved than the host has",
        _more_memory,
        always("Reduce memory in systemReserved, kubeReserved and evictionHard."),
    ),
    Rule("", "an unknown memory manager policy", _policy, always("Use None or Static.")),
    Rule("", "reservedMemory that cannot be parsed", lambda facts: reserved(facts)[1], _CORRECT),
    Rule("", "reservedMemory of another resource than memory", _unsupported, _CORRECT),
    Rule("", "reservedMemory of zero", _zero, _CORRECT),
    Rule("", "reservedMemory that names a node and a resource twice", _duplicate, _CORRECT),
    Rule("", "reservedMemory of a node that does not exist", _missing_node, _CORRECT),
    Rule("", "reservedMemory that differs from what is reserved", _other_sum, _sum_advice),
    Rule("", "the policy Static without reserved memory", _nothing, _CORRECT),
)
