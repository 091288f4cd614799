"""What the kubelet refuses about the CPU manager's policy and options."""

from __future__ import annotations

from typing import Any

import pytest

from isolcpus_dp.report.check.start import cpu_policy

from .conftest import Settings, Start, refused


def static(*, topology: str = "none", gates: Any = None, **options: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {
        "reservedSystemCPUs": "0",
        "cpuManagerPolicy": "static",
        "cpuManagerPolicyOptions": named,
        "topologyManagerPolicy": topology,
        "featureGates": gates,
    }


ALPHA = {"CPUManagerPolicyAlphaOptions": True}

# By rule: settings that the kubelet refuses, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str]] = {
    "a CPU manager policy other than none and static": (
        {"cpuManagerPolicy": "Static"},
        'the CPU manager has no policy "Static"',
    ),
    "the policy static without a reserved CPU": (
        {"cpuManagerPolicy": "static", "kubeReserved": {"cpu": "0"}},
        "the CPU manager's policy is static, and no CPU is reserved",
    ),
    "an option of the policy none": (
        {"cpuManagerPolicyOptions": {"full-pcpus-only": "true"}},
        "the CPU manager's policy none has no option full-pcpus-only",
    ),
    "--cpu-manager-policy-options with a word that is no pair": (
        {**static(), "cpuManagerPolicyOptions": "full-pcpus-only"},
        "--cpu-manager-policy-options has 'full-pcpus-only', which is not NAME=VALUE",
    ),
    "a CPU manager option that is not a text": (
        static(full_pcpus_only=True, strict_cpu_reservation="true"),
        "full-pcpus-only in cpuManagerPolicyOptions is true without quotes",
    ),
    "an unknown CPU manager option": (
        static(strict="true"),
        "the CPU manager's policy static has no option strict",
    ),
    "an option that is neither true nor false": (
        static(full_pcpus_only="yes"),
        'full-pcpus-only is "yes" in cpuManagerPolicyOptions: it is neither true nor false',
    ),
    "an alpha option without its feature gate": (
        static(align_by_socket="false"),
        "align-by-socket in cpuManagerPolicyOptions needs the feature gate"
        " CPUManagerPolicyAlphaOptions",
    ),
    "a beta option with its feature gate off": (
        static(distribute_cpus_across_numa="true", gates={"CPUManagerPolicyBetaOptions": False}),
        "distribute-cpus-across-numa in cpuManagerPolicyOptions needs the feature gate"
        " CPUManagerPolicyBetaOptions",
    ),
    "a feature gate that is neither true nor false": (
        {"featureGates": {"AllAlpha": "true"}},
        'AllAlpha in featureGates is "true": it is neither true nor false',
    ),
    "options that exclude each other": (
        static(distribute_cpus_across_cores="true", full_pcpus_only="true", gates=ALPHA),
        "full-pcpus-only and distribute-cpus-across-cores exclude each other in"
        " cpuManagerPolicyOptions",
    ),
    "align-by-socket with the topology manager policy single-numa-node": (
        static(align_by_socket="true", gates=ALPHA, topology="single-numa-node"),
        "align-by-socket excludes the topology manager policy single-numa-node",
    ),
    "the feature gate CPUManagerPolicyOptions set to false": (
        {"featureGates": {"CPUManagerPolicyOptions": False}},
        "the feature gate CPUManagerPolicyOptions is false (locked to true since Kubernetes 1.33)",
    ),
}
NOT_HERE = {"align-by-socket with more sockets than NUMA nodes"}


@pytest.mark.parametrize("rule", sorted(EXAMPLES))
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, evidence = EXAMPLES[rule]
    assert refused(start(settings)).get(rule) == evidence
    # A boolean without quotes is refused for the quotes only.
    assert list(refused(start(settings))) == [rule]


def test_each_rule_has_an_example() -> None:
    assert {rule.refused for rule in cpu_policy.RULES} == set(EXAMPLES) | NOT_HERE


@pytest.mark.parametrize(
    "settings",
    [
        {"cpuManagerPolicy": "none", "cpuManagerPolicyOptions": {}},
        {"cpuManagerPolicy": "static", "systemReserved": {"cpu": "100m"}},
        {"cpuManagerPolicy": "static", "kubeReserved": "cpu=1"},
        static(full_pcpus_only="t", strict_cpu_reservation="1", distribute_cpus_across_numa="true"),
        static(align_by_socket="true", gates={"AllAlpha": True}),
        static(distribute_cpus_across_cores="true", gates=ALPHA, full_pcpus_only="false"),
        {
            **static(),
            "cpuManagerPolicyOptions": "full-pcpus-only=true\nstrict-cpu-reservation=true",
        },
        {
            **static(align_by_socket="true", gates={"CPUManagerPolicyAlphaOptions": False}),
            "--feature-gates": "CPUManagerPolicyAlphaOptions=true,AllBeta=false",
        },
    ],
)
def test_valid_policies_are_accepted(start: Start, settings: Settings) -> None:
    assert refused(start(settings)) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("distribute_cpus_across_numa", "distribute_cpus_across_cores"),
        ("prefer_align_cpus_by_uncorecache", "distribute_cpus_across_cores"),
        ("prefer_align_cpus_by_uncorecache", "distribute_cpus_across_numa"),
    ],
)
def test_other_pairs_exclude_each_other(start: Start, first: str, second: str) -> None:
    settings = static(gates=ALPHA, **{first: "true", second: "true"})
    assert list(refused(start(settings))) == ["options that exclude each other"]


def test_flag_is_not_split_at_commas(start: Start) -> None:
    words = "full-pcpus-only=true,strict-cpu-reservation=true"
    found = refused(start({**static(), "cpuManagerPolicyOptions": words}))
    assert list(found) == ["an option that is neither true nor false"]


def test_explicit_gate_overrides_its_stage(start: Start) -> None:
    gates = {"AllAlpha": True, "CPUManagerPolicyAlphaOptions": False}
    found = refused(start(static(align_by_socket="true", gates=gates)))
    assert list(found) == ["an alpha option without its feature gate"]


def test_refused_list_is_not_also_a_missing_reservation(start: Start) -> None:
    found = refused(start({"cpuManagerPolicy": "static", "reservedSystemCPUs": "0,"}))
    assert list(found) == ["reservedSystemCPUs that is not a CPU list"]
