"""On which CPUs a container may run: an example for each part of the rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from isolcpus_dp.config import Config, PinningConfig, PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.nri.pinning import Decision, Rules, decide, off_the_isolated, returned, rules
from isolcpus_dp.simulator.machine import MadeUpMachine, regular

OWN = "windriver.com/isolcpus"
DPDK = "example.com/dpdk"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> MadeUpMachine:
    """2 NUMA nodes of 4 CPUs: 0-3 and 4-7; 2-3 and 6-7 are isolated."""
    return MadeUpMachine(tmp_path_factory.mktemp("sys"), regular(2, 4, 1), {2, 3, 6, 7})


def made(host: MadeUpMachine, *pools: PoolConfig, **pinning: object) -> Rules:
    present = machine.read(host.root)
    return rules(
        present,
        Config(pools=pools or (PoolConfig(),), pinning=PinningConfig(**pinning)),  # type: ignore[arg-type]
        present.online,
        machine.nodes_with_memory(host.root),
    )


def cpus(decision: Decision) -> Iterable[int] | None:
    return None if decision.cpus is None else set(decision.cpus)


def test_owner_runs_on_exactly_its_cpus(host: MadeUpMachine) -> None:
    decision = decide(made(host), {OWN: "2-3"}, "")
    assert decision == Decision(
        cpus=frozenset({2, 3}), mems=None, unlimited=True, owned=frozenset({2, 3})
    )


def test_owner_overrides_the_cpu_managers_choice(host: MadeUpMachine) -> None:
    assert cpus(decide(made(host), {OWN: "6"}, "0-1")) == {6}


def test_owner_of_two_resources_has_the_cpus_of_both(host: MadeUpMachine) -> None:
    both = made(host, PoolConfig(), PoolConfig(resource_name=DPDK, cpus=frozenset({6, 7})))
    assert cpus(decide(both, {OWN: "2", DPDK: "7"}, "")) == {2, 7}


def test_others_run_on_the_housekeeping_cpus(host: MadeUpMachine) -> None:
    assert decide(made(host), {}, "") == Decision(cpus=frozenset({0, 1, 4, 5}))
    assert decide(made(host), {"io.kubernetes.pod": "x"}, "").owned == frozenset()


def test_others_keep_their_cpuset_without_isolated_cpus(host: MadeUpMachine) -> None:
    assert cpus(decide(made(host), {}, "0-3")) == {0, 1}
    assert cpus(decide(made(host), {}, "1,4-5")) is None


def test_isolated_cpus_in_no_pool_are_kept_free(host: MadeUpMachine) -> None:
    few = made(host, PoolConfig(cpus=frozenset({2})))
    assert cpus(decide(few, {}, "")) == {0, 1, 4, 5}
    decision = decide(few, {OWN: "2-3"}, "")
    assert cpus(decision) == {0, 1, 4, 5}
    assert decision.complaints == (f"annotation {OWN}: 2-3: CPU 3 is not in the pool, which is 2",)


def test_completely_isolated_cpuset_becomes_housekeeping(host: MadeUpMachine) -> None:
    decision = decide(made(host), {}, "2-3")
    assert cpus(decision) == {0, 1, 4, 5}
    assert decision.complaints == (
        "all of its CPUs 2-3 are isolated, so it runs on the housekeeping CPUs: add"
        " the isolated CPUs to the kubelet's reservedSystemCPUs",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0-1", "CPU 0-1 is not in the pool, which is 2-3,6-7"),
        ("2-3,99", "CPU 99 is not in the pool, which is 2-3,6-7"),
        ("", "it names no CPU"),
        ("two", "'two' is neither a CPU number nor a range such as 2-3"),
    ],
)
def test_invalid_annotation_grants_no_isolated_cpus(
    host: MadeUpMachine, text: str, why: str
) -> None:
    for keep_off in (True, False):
        decision = decide(made(host, keep_others_off=keep_off), {OWN: text}, "")
        assert cpus(decision) == {0, 1, 4, 5}
        assert decision.complaints == (f"annotation {OWN}: {text}: {why}",)
        assert not decision.unlimited


def test_annotation_grants_only_cpus_of_its_own_pool(host: MadeUpMachine) -> None:
    both = made(host, PoolConfig(), PoolConfig(resource_name=DPDK, cpus=frozenset({6, 7})))
    assert cpus(decide(both, {DPDK: "2"}, "")) == {0, 1, 4, 5}
    assert cpus(decide(both, {OWN: "6"}, "")) == {0, 1, 4, 5}


def test_valid_annotation_counts_beside_an_invalid_one(host: MadeUpMachine) -> None:
    both = made(host, PoolConfig(), PoolConfig(resource_name=DPDK, cpus=frozenset({6, 7})))
    decision = decide(both, {OWN: "2", DPDK: "5"}, "")
    assert cpus(decision) == {2}
    assert decision.complaints == (f"annotation {DPDK}: 5: CPU 5 is not in the pool, which is 6-7",)


def test_mixed_owner_may_also_use_the_housekeeping_cpus(host: MadeUpMachine) -> None:
    decision = decide(made(host, PoolConfig(mixed=True)), {OWN: "2-3"}, "")
    assert cpus(decision) == {0, 1, 2, 3, 4, 5}
    assert decision.owned == {2, 3}


def test_local_memory_is_on_the_nodes_of_the_owned_cpus(host: MadeUpMachine) -> None:
    local = made(host, PoolConfig(mixed=True), memory_nodes="local")
    assert decide(local, {OWN: "2"}, "").mems == frozenset({0})
    assert decide(local, {OWN: "3,7"}, "").mems == frozenset({0, 1})
    assert decide(local, {}, "").mems is None


def test_memory_of_cpus_without_a_node_is_unchanged(host: MadeUpMachine) -> None:
    local = made(host, memory_nodes="local")
    nowhere = replace(local, nodes=dict.fromkeys(local.nodes))
    assert decide(nowhere, {OWN: "2"}, "").mems is None


def test_quota_is_kept_with_cpuquota_keep(host: MadeUpMachine) -> None:
    assert not decide(made(host, cpu_quota="keep"), {OWN: "2"}, "").unlimited


def test_others_are_unchanged_without_keepothersoff(host: MadeUpMachine) -> None:
    lenient = made(host, keep_others_off=False)
    assert cpus(decide(lenient, {}, "")) is None
    assert cpus(decide(lenient, {}, "0-7")) is None
    assert cpus(decide(lenient, {OWN: "2"}, "")) == {2}


def test_offline_cpu_is_not_in_a_cpuset(tmp_path_factory: pytest.TempPathFactory) -> None:
    host = MadeUpMachine(tmp_path_factory.mktemp("sys"), regular(2, 4, 1), {2, 3, 6, 7})
    host.set_offline(1, 3)
    assert cpus(decide(made(host), {OWN: "2-3"}, "")) == {2}
    assert cpus(decide(made(host), {}, "")) == {0, 4, 5}
    decision = decide(made(host), {OWN: "3"}, "")
    assert cpus(decision) == {0, 4, 5}
    assert decision.complaints == (f"annotation {OWN}: 3: none of them is online",)
    # The kubelet's own cpuset for it changes nothing and is not in the complaint.
    assert decide(made(host), {OWN: "3"}, "3") == decision


def test_node_without_memory_is_not_used(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """cgroup v1 rejects a cpuset that names such a node."""
    host = MadeUpMachine(tmp_path_factory.mktemp("sys"), regular(2, 4, 1), {2, 3, 6, 7})
    (host.root / "devices/system/node/has_memory").write_text("0\n")
    local = made(host, memory_nodes="local")
    assert decide(local, {OWN: "2"}, "").mems == frozenset({0})
    assert decide(local, {OWN: "6"}, "").mems is None
    assert decide(local, {OWN: "3,7"}, "").mems is None


def test_cpuset_may_name_offline_housekeeping_cpus(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    host = MadeUpMachine(tmp_path_factory.mktemp("sys"), regular(2, 4, 1), {2, 3, 6, 7})
    host.set_offline(1, 3)
    present = machine.read(host.root)
    cgroup_v2 = rules(present, Config(), present.present, frozenset())
    assert cpus(decide(cgroup_v2, {}, "")) == {0, 1, 4, 5}
    assert cpus(decide(cgroup_v2, {OWN: "2-3"}, "")) == {2}


def test_host_without_isolated_cpus_changes_no_container(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    plain = MadeUpMachine(tmp_path_factory.mktemp("sys"), regular(2, 4, 1))
    assert cpus(decide(made(plain), {}, "")) is None
    assert cpus(decide(made(plain), {OWN: "2"}, "0-3")) is None
    assert len(decide(made(plain), {OWN: "2"}, "0-3").complaints) == 1


def test_decision_after_a_failure_is_housekeeping(host: MadeUpMachine) -> None:
    assert cpus(off_the_isolated(made(host))) == {0, 1, 4, 5}


# No housekeeping CPU


def lacking(host: MadeUpMachine, **pinning: object) -> Rules:
    """As with cgroup v1, when all CPUs that are not isolated are offline."""
    settings = Config(pinning=PinningConfig(**pinning))  # type: ignore[arg-type]
    return rules(machine.read(host.root), settings, frozenset({2, 3}), frozenset())


LACK = (
    "no housekeeping CPU is left for containers that own none: all CPUs that they could use, 2-3,"
    " are isolated; isolate fewer CPUs"
)


@pytest.mark.parametrize("cpuset", ["", "2", "2-3,6-7"])
def test_others_are_refused_without_housekeeping_cpus(host: MadeUpMachine, cpuset: str) -> None:
    decision = decide(lacking(host), {}, cpuset)
    assert decision == Decision(cpus=None, refusal=f"{LACK}, or set KeepOthersOff=no")


def test_owners_are_pinned_without_housekeeping_cpus(host: MadeUpMachine) -> None:
    for mixed in (False, True):
        pools = {OWN: replace(lacking(host).pools[OWN], mixed=mixed)}
        decision = decide(replace(lacking(host), pools=pools), {OWN: "2-3"}, "")
        assert (cpus(decision), decision.refusal) == ({2, 3}, "")


def test_lack_of_housekeeping_cpus_refuses_nobody_without_keepothersoff(
    host: MadeUpMachine,
) -> None:
    assert decide(lacking(host, keep_others_off=False), {}, "") == Decision(cpus=None)


def test_invalid_annotation_is_refused_without_housekeeping_cpus(host: MadeUpMachine) -> None:
    decision = decide(lacking(host, keep_others_off=False), {OWN: "0"}, "")
    assert decision == Decision(
        cpus=None,
        complaints=(f"annotation {OWN}: 0: CPU 0 is not in the pool, which is 2-3,6-7",),
        refusal=LACK,
    )


def test_failed_decision_is_a_refusal_without_housekeeping_cpus(host: MadeUpMachine) -> None:
    decision = off_the_isolated(lacking(host, keep_others_off=False))
    assert decision == Decision(cpus=None, refusal=LACK)


def test_returned_cpus_are_all_or_the_requested_ones(host: MadeUpMachine) -> None:
    lenient = made(host, keep_others_off=False)
    assert cpus(returned(lenient, Decision(cpus=None), "")) == {0, 1, 2, 3, 4, 5, 6, 7}
    assert cpus(returned(lenient, Decision(cpus=None), "1-2,9")) == {1, 2}
    assert cpus(returned(lenient, Decision(cpus=None), "9")) is None
