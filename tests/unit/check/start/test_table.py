"""The check `kubelet-start`, with the kubelet's files and flags."""

from __future__ import annotations

import pytest

from isolcpus_dp.report.check.finding import Verdict
from isolcpus_dp.report.check.start import table
from tests.unit.check.conftest import MadeUpHost
from tests.unit.check.conftest import made_up as made_up  # the fixture


def flags(made_up: MadeUpHost, *words: str) -> None:
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "\0".join(["kubelet", *words]))


def test_host_without_refusals_is_ok(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", "cpuManagerPolicy: static\nreservedSystemCPUs: 0,2-3,6-7")
    made_up.kubelet("cpu_manager_state", '{"policyName": "static", "defaultCpuSet": "0-7"}')
    found = table.start(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "the kubelet accepts its settings and its state files",
    )


def test_all_refusals_are_listed(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", "cpuManagerPolicy: Static\nmemoryManagerPolicy: static")
    made_up.kubelet("memory_manager_state", "")
    found = table.start(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        'the CPU manager has no policy "Static"; the memory manager has no policy "static" on'
        " Linux; memory_manager_state is empty, as after a power loss: the kubelet does not start",
    )
    assert found.advice == (
        "Set cpuManagerPolicy to none or static, in lower case. Use None or Static. Drain the node,"
        f" stop the kubelet, remove {made_up.directory}/kubelet/memory_manager_state, and start the"
        " kubelet."
    )


def test_memory_is_compared_with_the_hosts(made_up: MadeUpHost) -> None:
    made_up.proc("meminfo", "MemTotal:        1048576 kB\nMemFree:  1 kB")
    # evictionHard reserves 100 MiB by default.
    made_up.kubelet("config.yaml", "systemReserved: {memory: 924Mi}")
    assert table.start(made_up.host()).verdict is Verdict.OK
    made_up.kubelet("config.yaml", "systemReserved: {memory: 925Mi}")
    assert table.start(made_up.host()).verdict is Verdict.PROBLEM


def test_state_file_is_compared_with_the_memory_of_a_node(made_up: MadeUpHost) -> None:
    made_up.sys("devices/system/node/node0/meminfo", "Node 0 MemTotal:  1024 kB")
    made_up.kubelet(
        "config.yaml",
        "memoryManagerPolicy: Static\nevictionHard: {}\nsystemReserved: {memory: 1Ki}\n"
        "reservedMemory: [{numaNode: 0, limits: {memory: 1Ki}}]",
    )
    state = (
        '{"policyName": "Static", "machineState": {"0": {"memoryMap": {"memory": {"total": %d}}}}}'
    )
    made_up.kubelet("memory_manager_state", state % 1048576)
    assert table.start(made_up.host()).verdict is Verdict.OK
    made_up.kubelet("memory_manager_state", state % 1048577)
    assert "1048577 bytes on node 0, but it has 1048576" in table.start(made_up.host()).evidence


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["--cpu-manager-policy=static", "--kube-reserved=memory=1Gi", "--kube-reserved=cpu=1"],
            "",
        ),
        (["--cpu-manager-policy=static"], "no CPU is reserved"),
        (["--system-reserved", "cpu=9"], "9 CPUs are reserved, and 8 are online"),
        (["--reserved-cpus=0", "--system-reserved-cgroup=/s"], "with systemReservedCgroup"),
        (["--topology-manager-scope=node"], 'topologyManagerScope is "node"'),
        (
            [
                "--cpu-manager-policy=static",
                "--reserved-cpus=0",
                "--cpu-manager-policy-options=full-pcpus-only=true",
                "--cpu-manager-policy-options=align-by-socket=true",
                "--feature-gates=CPUManagerPolicyAlphaOptions=true",
            ],
            "",
        ),
        (
            [
                "--memory-manager-policy=Static",
                "--eviction-hard=memory.available<24Mi",
                "--system-reserved=memory=1000Mi",
                "--reserved-memory=0:memory=1Gi",
            ],
            "",
        ),
        (["--topology-manager-policy=best-effort"], ""),
        (
            [
                "--topology-manager-policy=best-effort",
                "--topology-manager-policy-options=max-allowable-numa-nodes=4",
            ],
            "it is not a number of at least 8",
        ),
    ],
)
def test_flags_are_validated(made_up: MadeUpHost, words: list[str], reason: str) -> None:
    flags(made_up, *words)
    found = table.start(made_up.host())
    assert found.verdict is (Verdict.PROBLEM if reason else Verdict.OK)
    assert reason in found.evidence


def test_gates_of_file_and_flag_are_merged(made_up: MadeUpHost) -> None:
    made_up.kubelet(
        "config.yaml",
        "cpuManagerPolicy: static\nreservedSystemCPUs: 0,2-3,6-7\n"
        'cpuManagerPolicyOptions: {align-by-socket: "true"}\n'
        "featureGates: {CPUManagerPolicyAlphaOptions: true}",
    )
    config = f"--config={made_up.directory}/kubelet/config.yaml"
    flags(made_up, config, "--feature-gates=NodeSwap=false")
    assert table.start(made_up.host()).verdict is Verdict.OK
    flags(made_up, config, "--feature-gates=CPUManagerPolicyAlphaOptions=false")
    assert table.start(made_up.host()).verdict is Verdict.PROBLEM


def test_drop_in_is_merged_into_the_file(made_up: MadeUpHost) -> None:
    made_up.kubelet(
        "config.yaml",
        "cpuManagerPolicy: static\nsystemReserved: {cpu: '1', memory: 1Gi}\nkubeReserved: {cpu: x}",
    )
    made_up.kubelet("drop-ins/10.conf", "systemReserved: {memory: 2Gi}\nkubeReserved: null")
    directory = f"{made_up.directory}/kubelet"
    flags(made_up, f"--config={directory}/config.yaml", f"--config-dir={directory}/drop-ins")
    assert table.start(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("main", "drop_in", "reserved"),
    [
        # The kubelet adds the default to the main file, before it merges the drop-ins.
        (True, "", "1124Mi"),
        (True, "evictionHard: {nodefs.available: 5%}", "1124Mi"),
        (True, "evictionHard: {memory.available: 24Mi}", "1Gi"),
        (True, "mergeDefaultEvictionSettings: true", "1124Mi"),
        # Without a main file, it has no default.
        (False, "evictionHard: {nodefs.available: 5%}", "1Gi"),
        (False, "", "1Gi"),
    ],
)
def test_default_of_eviction_is_in_the_main_file(
    made_up: MadeUpHost, main: bool, drop_in: str, reserved: str
) -> None:
    system = "1000Mi" if "24Mi" in drop_in else "1Gi"
    made_up.kubelet("config.yaml", "kind: KubeletConfiguration")
    made_up.kubelet("drop-ins/10.conf", drop_in)
    directory = f"{made_up.directory}/kubelet"
    flags(
        made_up,
        *([f"--config={directory}/config.yaml"] if main else []),
        f"--config-dir={directory}/drop-ins",
        "--memory-manager-policy=Static",
        f"--system-reserved=memory={system}",
        f"--reserved-memory=0:memory={reserved}",
    )
    assert table.start(made_up.host()).verdict is Verdict.OK


def test_kubelet_without_files_has_no_default_of_eviction(made_up: MadeUpHost) -> None:
    words = ["--memory-manager-policy=Static", "--system_reserved=memory=1Gi"]
    flags(made_up, *words, "--reserved-memory=0:memory=1Gi")
    assert table.start(made_up.host()).verdict is Verdict.OK
    flags(made_up, *words, "--reserved-memory=0:memory=1124Mi")
    assert table.start(made_up.host()).verdict is Verdict.PROBLEM


def test_huge_pages_are_compared_with_those_of_a_node(made_up: MadeUpHost) -> None:
    pages = "devices/system/node/node0/hugepages"
    made_up.sys(f"{pages}/hugepages-1048576kB/nr_hugepages", "2")
    made_up.sys(f"{pages}/hugepages-2048kB/nr_hugepages", "0")
    made_up.kubelet(
        "config.yaml",
        "memoryManagerPolicy: Static\nevictionHard: {}\nsystemReserved: {memory: 1Ki}\n"
        "reservedMemory: [{numaNode: 0, limits: {memory: 1Ki}}]",
    )
    state = (
        '{"policyName": "Static", "machineState": {"0": {"memoryMap": {"memory": {},'
        ' "hugepages-2Mi": {"total": 0}, "hugepages-1Gi": {"total": %d}}}}}'
    )
    made_up.kubelet("memory_manager_state", state % 2147483648)
    assert table.start(made_up.host()).verdict is Verdict.OK
    made_up.kubelet("memory_manager_state", state % 1073741824)
    assert "another amount of hugepages-1Gi on node 0" in table.start(made_up.host()).evidence
