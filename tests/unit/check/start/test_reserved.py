"""What the kubelet refuses about reservedSystemCPUs, systemReserved and kubeReserved."""

from __future__ import annotations

import pytest

from isolcpus_dp.report.check.start import reserved, values

from .conftest import Settings, Start, refused

# By rule: settings that the kubelet refuses, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str]] = {
    "reservedSystemCPUs that is not a text": (
        {"reservedSystemCPUs": 3},
        "reservedSystemCPUs is 3 without quotes",
    ),
    "reservedSystemCPUs that is not a CPU list": (
        {"reservedSystemCPUs": "0, 2-3"},
        "reservedSystemCPUs is \"0, 2-3\": ' 2-3' is neither a CPU number nor a range such as 2-3",
    ),
    "reservedSystemCPUs with a CPU that is not online": (
        {"reservedSystemCPUs": "0,8"},
        "reservedSystemCPUs is 0,8: it names a CPU that the host does not have",
    ),
    "reservedSystemCPUs together with systemReservedCgroup or kubeReservedCgroup": (
        {"reservedSystemCPUs": "0", "kubeReservedCgroup": "/kube"},
        "reservedSystemCPUs cannot be combined with kubeReservedCgroup",
    ),
    "enforceNodeAllocatable without the cgroup that it needs": (
        {"enforceNodeAllocatable": ["pods", "system-reserved"]},
        "enforceNodeAllocatable has system-reserved without systemReservedCgroup",
    ),
    "enforceNodeAllocatable with words that are unknown or exclude each other": (
        {"enforceNodeAllocatable": ["pods", "pods", "system"]},
        "enforceNodeAllocatable has the unknown word system, pods twice",
    ),
    "systemReserved or kubeReserved with a value that is not a text": (
        {"systemReserved": {"cpu": 1}},
        "cpu in systemReserved is 1 without quotes",
    ),
    "--system-reserved with a word that is no pair": (
        {"systemReserved": "cpu=1,memory"},
        "--system-reserved has 'memory', which is not NAME=VALUE",
    ),
    "--kube-reserved with a word that is no pair": (
        {"kubeReserved": "cpu"},
        "--kube-reserved has 'cpu', which is not NAME=VALUE",
    ),
    "systemReserved or kubeReserved with an unknown resource": (
        {"kubeReserved": {"hugepages-1Gi": "1Gi"}},
        "the kubelet cannot reserve hugepages-1Gi in kubeReserved",
    ),
    "systemReserved or kubeReserved with an invalid amount": (
        {"kubeReserved": {"memory": "1GB"}},
        'memory in kubeReserved is "1GB", which is not an amount',
    ),
    "systemReserved or kubeReserved with a negative amount": (
        {"systemReserved": {"cpu": "-1"}},
        "cpu in systemReserved is negative",
    ),
    "more CPUs reserved than are online": (
        {"systemReserved": {"cpu": "8"}, "kubeReserved": {"cpu": "500m"}},
        "8.5 CPUs are reserved, and 8 are online",
    ),
}


@pytest.mark.parametrize("rule", [rule.refused for rule in reserved.RULES])
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, evidence = EXAMPLES[rule]
    assert refused(start(settings)) == {rule: evidence}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reservedSystemCPUs": ""},
        {"reservedSystemCPUs": "0-7"},
        {"reservedSystemCPUs": "+1,07,1-2"},
        {"systemReserved": {"cpu": "500m", "memory": "1e3", "ephemeral-storage": "1.5Gi"}},
        {"systemReserved": "cpu=1,memory=1Gi\npid=1k", "kubeReserved": {"cpu": "7"}},
        # reservedSystemCPUs replaces the CPUs of systemReserved before they are parsed.
        {"reservedSystemCPUs": "0", "systemReserved": {"cpu": "many"}},
        {"enforceNodeAllocatable": ["system-reserved"], "systemReservedCgroup": "/system"},
        {"enforceNodeAllocatable": "pods"},
        {"enforceNodeAllocatable": ["none"], "cgroupsPerQOS": False},
        {"enforceNodeAllocatable": [], "cgroupsPerQOS": False},
    ],
)
def test_valid_reservations_are_accepted(start: Start, settings: Settings) -> None:
    assert refused(start(settings)) == {}


def test_offline_cpu_is_refused_and_named(start: Start) -> None:
    known = start({"reservedSystemCPUs": "0,2-3,6-7"}, offline=(7,))
    assert list(refused(known).values()) == ["reservedSystemCPUs is 0,2-3,6-7: CPU 7 is offline"]
    assert refused(start({"reservedSystemCPUs": "0,2-3,6"}, offline=(7,))) == {}


@pytest.mark.parametrize("text", ["0,", ",0", "-1", "3-1", "1-", "x", " 1", "1;2", "0-1-2"])
def test_invalid_cpu_lists_are_refused(start: Start, text: str) -> None:
    assert list(refused(start({"reservedSystemCPUs": text}))) == [
        "reservedSystemCPUs that is not a CPU list"
    ]


def test_huge_range_is_refused_at_once(start: Start) -> None:
    assert list(refused(start({"reservedSystemCPUs": "0-99999999999999"}))) == [
        "reservedSystemCPUs with a CPU that is not online"
    ]


def test_long_ranges_that_overlap_are_added_up_once() -> None:
    assert values.cpus(",".join(["0-8191"] * 100_000)) == frozenset(range(8192))
    assert values.cpus("6-7,0-1,1-3,3") == {0, 1, 2, 3, 6, 7}


@pytest.mark.parametrize(
    ("settings", "evidence"),
    [
        ({"enforceNodeAllocatable": ["none", "pods"]}, "none and other words"),
        (
            {"enforceNodeAllocatable": ["pods"], "cgroupsPerQOS": False},
            "words, but cgroupsPerQOS is false",
        ),
        (
            {
                "enforceNodeAllocatable": ["system-reserved", "system-reserved-compressible"],
                "systemReservedCgroup": "/system",
            },
            "both system-reserved and system-reserved-compressible",
        ),
    ],
)
def test_words_that_exclude_each_other_are_refused(
    start: Start, settings: Settings, evidence: str
) -> None:
    assert list(refused(start(settings)).values()) == [f"enforceNodeAllocatable has {evidence}"]


@pytest.mark.parametrize(
    ("value", "evidence"),
    [
        ({"cpu": None}, 'cpu in systemReserved is "", which is not an amount'),
        (["cpu=1"], "systemReserved is a list"),
    ],
)
def test_values_of_another_type_are_refused(start: Start, value: object, evidence: str) -> None:
    assert list(refused(start({"systemReserved": value})).values()) == [evidence]
