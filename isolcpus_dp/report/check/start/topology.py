"""Refusals about the topology manager.

The facts are from Kubernetes 1.36: pkg/kubelet/cm/topologymanager/topology_manager.go,
policy_options.go and numa_info.go, and pkg/kubelet/apis/config/validation/validation.go. With the
policy none, the kubelet validates no options.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isolcpus_dp.report.check.start import advised, values
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

_KEY = "topologyManagerPolicyOptions"
_POLICIES = ("none", "best-effort", "restricted", "single-numa-node")
_CLOSEST, MAX = "prefer-closest-numa-nodes", "max-allowable-numa-nodes"
_STAGES = {_CLOSEST: "stable", MAX: "stable"}
_LEAST = advised.NODES_WITHOUT_OPTION


def most_nodes(facts: Facts) -> int | None:
    """The NUMA nodes with which the kubelet accepts a policy; None if the option is invalid."""
    text = values.pairs(facts.settings, _KEY).get(MAX, str(_LEAST))
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def accepted_options(facts: Facts) -> dict[str, str]:
    """The options in the settings that the kubelet accepts with any policy."""
    options = values.pairs(facts.settings, _KEY)
    closest = values.boolean(options.get(_CLOSEST, ""))
    if closest is None or (closest and not facts.nodes):
        options.pop(_CLOSEST, None)
    if (most_nodes(facts) or 0) < _LEAST:
        options.pop(MAX, None)
    return {name: value for name, value in options.items() if name in _STAGES}


def _options(facts: Facts) -> dict[str, str]:
    return {} if facts.topology_policy == "none" else values.pairs(facts.settings, _KEY)


def _policy(facts: Facts) -> str:
    policy = facts.topology_policy
    return "" if policy in _POLICIES else f'the topology manager has no policy "{policy}"'


def _scope(facts: Facts) -> str:
    scope = values.text(facts.settings, "topologyManagerScope", "container")
    return "" if scope in ("container", "pod") else f'topologyManagerScope is "{scope}"'


def _unknown(facts: Facts) -> str:
    return bad_option(_options(facts), _STAGES, "topology manager")


def _closest(facts: Facts) -> str:
    value = _options(facts).get(_CLOSEST)
    if value is None or values.boolean(value) is not None:
        return ""
    return f'{_CLOSEST} is "{value}": it is neither true nor false'


def _max(facts: Facts) -> str:
    value, most = _options(facts).get(MAX), most_nodes(facts)
    if value is None or (most is not None and most >= _LEAST):
        return ""
    return f'{MAX} is "{value}": it is not a number of at least {_LEAST}'


def _nodes(facts: Facts) -> str:
    most = most_nodes(facts)
    if facts.topology_policy == "none" or most is None or facts.domains <= max(most, _LEAST):
        return ""
    return (
        f"the topology manager's policy is {facts.topology_policy}, and the host has"
        f" {facts.domains} NUMA nodes: the kubelet accepts at most {max(most, _LEAST)}"
    )


def _nodes_advice(facts: Facts) -> str:
    _, most = advised.topology_policy(facts.domains)
    return (
        f'Set in the kubelet\'s configuration: {_KEY}: {{{MAX}: "{most}"}}'
        " (Kubernetes 1.31 and newer), or topologyManagerPolicy: none."
        if most
        else "Set in the kubelet's configuration: topologyManagerPolicy: none."
    )


def _no_distances(facts: Facts) -> str:
    closest = values.boolean(_options(facts).get(_CLOSEST, ""))
    return (
        f"{_CLOSEST} is set, and the kernel shows no NUMA nodes"
        if closest and not facts.nodes
        else ""
    )


RULES = (
    Rule(
        "topology-manager",
        "an unknown topology manager policy",
        _policy,
        always(f"Set topologyManagerPolicy to {', '.join(_POLICIES[:-1])} or {_POLICIES[-1]}."),
    ),
    Rule(
        "topology-manager",
        "an unknown topology manager scope",
        _scope,
        always("Set topologyManagerScope to container or pod."),
    ),
    Rule(
        "topology-manager",
        "--topology-manager-policy-options with a word that is no pair",
        not_pairs(_KEY, "--topology-manager-policy-options"),
        always("Write each option as NAME=VALUE."),
    ),
    Rule("topology-manager", "a topology manager option that is not a text", not_text(_KEY), QUOTE),
    Rule(
        "topology-manager",
        "an unknown topology manager option",
        _unknown,
        always(f"Remove it from {_KEY}."),
    ),
    Rule(
        "topology-manager",
        f"{_CLOSEST} that is neither true nor false",
        _closest,
        always(f'Set it to "true" or "false" in {_KEY}.'),
    ),
    Rule(
        "topology-manager",
        f"{_CLOSEST} without NUMA",
        _no_distances,
        always(f"Remove it from {_KEY}."),
    ),
    Rule(
        "topology-manager",
        f"{MAX} that is not a number of at least {_LEAST}",
        _max,
        always(f'Set it to "{_LEAST}" or more in {_KEY}.'),
    ),
    Rule("topology-manager", f"more than {_LEAST} NUMA nodes", _nodes, _nodes_advice),
    Rule(
        "topology-manager",
        "the feature gate TopologyManagerPolicyOptions set to false",
        locked("TopologyManagerPolicyOptions", "Kubernetes 1.32"),
        always("Remove the gate from featureGates."),
    ),
)
