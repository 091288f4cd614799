"""Refusals about what is reserved: reservedSystemCPUs, systemReserved and kubeReserved.

The facts are from Kubernetes 1.36: getReservedCPUs and parseResourceList in
cmd/kubelet/app/server.go, pkg/kubelet/apis/config/validation/validation.go, and
validateNodeAllocatable in pkg/kubelet/cm/node_container_manager_linux.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.start import values
from isolcpus_dp.report.check.start.change import CGROUPS, reserve_advice
from isolcpus_dp.report.check.start.rule import QUOTE, Rule, always, not_pairs, not_text

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

# The words of enforceNodeAllocatable that need no cgroup.
_ALONE = ("pods", "none")
_RESOURCES = ("cpu", "memory", "ephemeral-storage", "pid")
_AMOUNT = always('Correct the amount: for example cpu: "1", cpu: 500m or memory: 1Gi.')


def _syntax(facts: Facts) -> str:
    text = values.text(facts.settings, "reservedSystemCPUs")
    try:
        values.cpus(text)
    except values.ValueRefused as error:
        return f'reservedSystemCPUs is "{text}": {error}'
    return ""


def _offline(facts: Facts) -> str:
    missing = facts.reserved - facts.online
    if not missing:
        return ""
    offline = missing & facts.machine.present
    absent = missing - offline
    text = values.text(facts.settings, "reservedSystemCPUs")
    reasons = [f"CPU {render(offline)} is offline"] if offline else []
    reasons += ["it names a CPU that the host does not have"] if absent else []
    return f"reservedSystemCPUs is {text}: {' and '.join(reasons)}"


def _cgroups(facts: Facts) -> str:
    named = sorted({key for key in CGROUPS.values() if values.text(facts.settings, key)})
    if not named or not values.text(facts.settings, "reservedSystemCPUs"):
        return ""
    return f"reservedSystemCPUs cannot be combined with {' and '.join(named)}"


def _enforced_without_cgroup(facts: Facts) -> str:
    words = values.words(facts.settings.get("enforceNodeAllocatable"))
    missing = [
        f"{word} without {key}"
        for word, key in CGROUPS.items()
        if word in words and not values.text(facts.settings, key)
    ]
    return f"enforceNodeAllocatable has {', '.join(missing)}" if missing else ""


def _enforced(facts: Facts) -> str:
    words = values.words(facts.settings.get("enforceNodeAllocatable"))
    wrong = [f"the unknown word {word}" for word in words if word not in (*CGROUPS, *_ALONE)]
    wrong += [f"{word} twice" for word, times in sorted(Counter(words).items()) if times > 1]
    wrong += [
        f"both {word} and {word}-compressible"
        for word in ("system-reserved", "kube-reserved")
        if word in words and f"{word}-compressible" in words
    ]
    wrong += ["none and other words"] if "none" in words and len(set(words)) > 1 else []
    if facts.settings.get("cgroupsPerQOS") is False and set(words) - {"none"}:
        wrong.append("words, but cgroupsPerQOS is false")
    return f"enforceNodeAllocatable has {', '.join(wrong)}" if wrong else ""


def _amounts(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Key, resource and amount of all that is reserved and not replaced by reservedSystemCPUs."""
    for key in ("systemReserved", "kubeReserved"):
        for resource, amount in values.pairs(facts.settings, key).items():
            if not (resource == "cpu" and facts.reserved):
                yield key, resource, amount


def _resource(facts: Facts) -> str:
    wrong = [f"{name} in {key}" for key, name, _ in _amounts(facts) if name not in _RESOURCES]
    return f"the kubelet cannot reserve {', '.join(wrong)}" if wrong else ""


def _quantity(facts: Facts) -> str:
    wrong = [
        f'{resource} in {key} is "{amount}"'
        for key, resource, amount in _amounts(facts)
        if resource in _RESOURCES and values.quantity(amount) is None
    ]
    return f"{', '.join(wrong)}, which is not an amount" if wrong else ""


def _negative(facts: Facts) -> str:
    amounts = [(key, name, values.quantity(amount)) for key, name, amount in _amounts(facts)]
    wrong = [f"{name} in {key}" for key, name, amount in amounts if amount and amount < 0]
    return f"{', '.join(wrong)} is negative" if wrong else ""


def _more_cpus(facts: Facts) -> str:
    amount, online = facts.reservation("cpu"), len(facts.online)
    if facts.reserved or amount <= online:
        return ""
    return f"{float(amount):g} CPUs are reserved, and {online} are online"


RULES = (
    Rule(
        "reserved-cpus",
        "reservedSystemCPUs that is not a text",
        not_text("reservedSystemCPUs"),
        QUOTE,
    ),
    Rule("reserved-cpus", "reservedSystemCPUs that is not a CPU list", _syntax, reserve_advice),
    Rule(
        "reserved-cpus",
        "reservedSystemCPUs with a CPU that is not online",
        _offline,
        reserve_advice,
    ),
    Rule(
        "reserved-cpus",
        "reservedSystemCPUs together with systemReservedCgroup or kubeReservedCgroup",
        _cgroups,
        reserve_advice,
    ),
    Rule(
        "",
        "enforceNodeAllocatable without the cgroup that it needs",
        _enforced_without_cgroup,
        always("Remove the word from enforceNodeAllocatable in the kubelet's configuration."),
    ),
    Rule(
        "",
        "enforceNodeAllocatable with words that are unknown or exclude each other",
        _enforced,
        always("Set enforceNodeAllocatable: [pods], or [none] if cgroupsPerQOS is false."),
    ),
    Rule(
        "",
        "systemReserved or kubeReserved with a value that is not a text",
        not_text("systemReserved", "kubeReserved"),
        QUOTE,
    ),
    Rule(
        "",
        "--system-reserved with a word that is no pair",
        not_pairs("systemReserved", "--system-reserved"),
        _AMOUNT,
    ),
    Rule(
        "",
        "--kube-reserved with a word that is no pair",
        not_pairs("kubeReserved", "--kube-reserved"),
        _AMOUNT,
    ),
    Rule(
        "",
        "systemReserved or kubeReserved with an unknown resource",
        _resource,
        always(f"Remove it: the resources are {', '.join(_RESOURCES)}."),
    ),
    Rule("", "systemReserved or kubeReserved with an invalid amount", _quantity, _AMOUNT),
    Rule("", "systemReserved or kubeReserved with a negative amount", _negative, _AMOUNT),
    Rule(
        "",
        "more CPUs reserved than are online",
        _more_cpus,
        always("Reduce cpu in systemReserved and kubeReserved."),
    ),
)
