"""Refusals about the CPU manager's policy and its options.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/cpumanager/cpu_manager.go, policy_none.go,
policy_static.go and policy_options.go. The kubelet validates options only with the policy static.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.report.check.start import values
from isolcpus_dp.report.check.start.change import reserve_advice
from isolcpus_dp.report.check.start.rule import (
    QUOTE,
    Rule,
    always,
    bad_option,
    locked,
    not_pairs,
    not_text,
)

if TYPE_CHECKING:
    from isolcpus_dp.report.check.start.facts import Facts

_KEY = "cpuManagerPolicyOptions"
# By option: its stage.
_STAGES = {
    "full-pcpus-only": "stable",
    "strict-cpu-reservation": "stable",
    "prefer-align-cpus-by-uncorecache": "stable",
    "distribute-cpus-across-numa": "beta",
    "align-by-socket": "alpha",
    "distribute-cpus-across-cores": "alpha",
}
_EXCLUSIVE = (
    ("full-pcpus-only", "distribute-cpus-across-cores"),
    ("distribute-cpus-across-numa", "distribute-cpus-across-cores"),
    ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-cores"),
    ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa"),
)
_REMOVE = always(f"Remove it from {_KEY}.")


def _options(facts: Facts) -> dict[str, str]:
    """The options of the policy static; empty with another policy."""
    return values.pairs(facts.settings, _KEY) if facts.cpu_policy == "static" else {}


def _on(facts: Facts, option: str) -> bool:
    return values.boolean(_options(facts).get(option, "")) is True


def _policy(facts: Facts) -> str:
    known = facts.cpu_policy in ("none", "static")
    return "" if known else f'the CPU manager has no policy "{facts.cpu_policy}"'


def _no_reservation(facts: Facts) -> str:
    named = values.text(facts.settings, "reservedSystemCPUs")  # refused for another reason
    if facts.cpu_policy != "static" or named or facts.reservation("cpu") > 0:
        return ""
    return "the CPU manager's policy is static, and no CPU is reserved"


def _options_of_none(facts: Facts) -> str:
    options = values.pairs(facts.settings, _KEY) if facts.cpu_policy == "none" else {}
    return f"the CPU manager's policy none has no option {', '.join(options)}" if options else ""


def _unknown(facts: Facts) -> str:
    return bad_option(_options(facts), _STAGES, "CPU manager's policy static")


def _value(facts: Facts) -> str:
    wrong = [
        f'{name} is "{value}"'
        for name, value in _options(facts).items()
        if name in _STAGES and values.boolean(value) is None
    ]
    return f"{', '.join(wrong)} in {_KEY}: it is neither true nor false" if wrong else ""


def _without_gate(facts: Facts, stage: str, gate: str, all_gates: str, *, default: bool) -> str:
    # An option also needs its gate if it is false.
    names = [name for name in _options(facts) if _STAGES.get(name) == stage]
    if not names or values.gate(facts.settings, gate, all_gates, default=default):
        return ""
    return f"{', '.join(names)} in {_KEY} needs the feature gate {gate}"


def _alpha(facts: Facts) -> str:
    return _without_gate(facts, "alpha", "CPUManagerPolicyAlphaOptions", "AllAlpha", default=False)


def _beta(facts: Facts) -> str:
    return _without_gate(facts, "beta", "CPUManagerPolicyBetaOptions", "AllBeta", default=True)


def _gate(facts: Facts) -> str:
    gates = facts.settings.get("featureGates")
    wrong = [
        f'{name} in featureGates is "{value}"'
        for name, value in (gates.items() if isinstance(gates, dict) else ())
        if value is not None and not isinstance(value, bool)
    ]
    return f"{', '.join(wrong)}: it is neither true nor false" if wrong else ""


def _exclusive(facts: Facts) -> str:
    both = [pair for pair in _EXCLUSIVE if all(_on(facts, name) for name in pair)]
    return f"{both[0][0]} and {both[0][1]} exclude each other in {_KEY}" if both else ""


def _socket_and_node(facts: Facts) -> str:
    if _on(facts, "align-by-socket") and facts.topology_policy == "single-numa-node":
        return "align-by-socket excludes the topology manager policy single-numa-node"
    return ""


def _more_sockets(facts: Facts) -> str:
    if not _on(facts, "align-by-socket") or not facts.nodes:
        return ""
    cpus = [facts.machine.cpus[cpu] for cpu in facts.online]
    sockets, nodes = {cpu.package for cpu in cpus}, {cpu.node for cpu in cpus}
    if len(sockets) <= len(nodes):
        return ""
    return f"align-by-socket is set on {len(sockets)} sockets and {len(nodes)} NUMA nodes"


RULES = (
    Rule(
        "cpu-manager",
        "a CPU manager policy other than none and static",
        _policy,
        always("Set cpuManagerPolicy to none or static, in lower case."),
    ),
    Rule(
        "cpu-manager",
        "the policy static without a reserved CPU",
        _no_reservation,
        reserve_advice,
    ),
    Rule(
        "cpu-manager",
        "an option of the policy none",
        _options_of_none,
        always(f"Remove {_KEY}, or set cpuManagerPolicy: static."),
    ),
    Rule(
        "cpu-manager",
        "--cpu-manager-policy-options with a word that is no pair",
        not_pairs(_KEY, "--cpu-manager-policy-options"),
        always("Give the flag once for each option, as NAME=true."),
    ),
    Rule("cpu-manager", "a CPU manager option that is not a text", not_text(_KEY), QUOTE),
    Rule("cpu-manager", "an unknown CPU manager option", _unknown, _REMOVE),
    Rule(
        "cpu-manager",
        "an option that is neither true nor false",
        _value,
        always(f'Set it to "true" or "false" in {_KEY}.'),
    ),
    Rule(
        "cpu-manager",
        "an alpha option without its feature gate",
        _alpha,
        always("Remove the option, or set featureGates: {CPUManagerPolicyAlphaOptions: true}."),
    ),
    Rule(
        "cpu-manager",
        "a beta option with its feature gate off",
        _beta,
        always("Remove the option, or set featureGates: {CPUManagerPolicyBetaOptions: true}."),
    ),
    Rule(
        "",
        "a feature gate that is neither true nor false",
        _gate,
        always("Write true or false without quotes in featureGates."),
    ),
    Rule("cpu-manager", "options that exclude each other", _exclusive, always("Remove one.")),
    Rule(
        "cpu-manager",
        "align-by-socket with the topology manager policy single-numa-node",
        _socket_and_node,
        _REMOVE,
    ),
    Rule(
        "cpu-manager", "align-by-socket with more sockets than NUMA nodes", _more_sockets, _REMOVE
    ),
    Rule(
        "cpu-manager",
        "the feature gate CPUManagerPolicyOptions set to false",
        locked("CPUManagerPolicyOptions", "Kubernetes 1.33"),
        always("Remove the gate from featureGates."),
    ),
)
