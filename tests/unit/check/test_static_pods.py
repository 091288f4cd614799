"""Static pods that were admitted without the isolated CPUs that they request."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.report.check import files, static_pods, table
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: forwarder
  namespace: fast
spec:
  containers:
  - name: main
    resources:
      limits: {windriver.com/isolcpus: 2, cpu: 100m}
  - name: sidecar
"""
MAIN = "fast/forwarder-worker/main"


@pytest.fixture
def manifests(made_up: MadeUpHost) -> Path:
    """The kubelet's directory of static pods, on the node `worker`."""
    directory = made_up.directory / "static"
    directory.mkdir()
    made_up.kubelet("config.yaml", f"staticPodPath: {directory}")
    made_up.proc("sys/kernel/hostname", "Worker")
    return directory


@pytest.fixture
def running(made_up: MadeUpHost, manifests: Path) -> MadeUpHost:
    """The static pod fast/forwarder runs, and holds no devices."""
    (manifests / "forwarder.yaml").write_text(POD)
    made_up.listed = {MAIN, "fast/forwarder-worker/sidecar"}
    made_up.process(100, "forwarder", "0-1,4-5")
    made_up.contains(100, "a", MAIN)
    return made_up


def test_running_pod_without_its_cpus_is_a_problem(running: MadeUpHost, manifests: Path) -> None:
    found = static_pods.devices(running.host())
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        f"running without all their isolated CPUs: {MAIN} has 0 of 2 windriver.com/isolcpus",
    )
    assert found.advice == (
        "Create the pod again when isolcpus-dp status shows enough free CPUs: run"
        f" mv {manifests}/forwarder.yaml /root/, wait until kubectl get pod -n fast"
        " forwarder-worker does not find it, then run"
        f" mv /root/forwarder.yaml {manifests}/forwarder.yaml."
    )


def test_running_pod_with_fewer_cpus_is_a_problem(running: MadeUpHost) -> None:
    running.owns(MAIN, 2)
    assert f"{MAIN} has 1 of 2" in static_pods.devices(running.host()).evidence


def test_pod_with_its_cpus_is_ok(running: MadeUpHost) -> None:
    # The kubelet lists the devices of each NUMA node separately.
    running.owns(MAIN, 2)
    running.owns(MAIN, 6)
    found = static_pods.devices(running.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "static pods that have the isolated CPUs that they request: fast/forwarder-worker",
    )


def test_advice_names_the_manifests_of_all_pods(running: MadeUpHost, manifests: Path) -> None:
    (manifests / "second.yaml").write_text(POD.replace("forwarder", "second"))
    running.listed.add("fast/second-worker/main")
    running.process(101, "second", "0-1,4-5")
    running.contains(101, "b", "fast/second-worker/main")
    found = static_pods.devices(running.host())
    assert found.evidence.count(" has 0 of 2 ") == 2
    assert found.advice.endswith(f" Do the same with {manifests}/second.yaml.")


def test_pod_that_the_kubelet_does_not_list_is_ok(running: MadeUpHost) -> None:
    """It is not admitted yet, or was rejected: it runs on no CPUs at all."""
    running.listed.clear()
    found = static_pods.devices(running.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "static pods that have the isolated CPUs that they request: (none); unknown to the kubelet,"
        " or init containers: fast/forwarder-worker",
    )


def test_listed_pod_without_a_process_is_a_warning(running: MadeUpHost) -> None:
    """Some kubelets list a pod that they have rejected."""
    running.contains(100, "a", "fast/another/main")
    (running.directory / "containers" / f"forwarder-worker_fast_main-{'a' * 64}.log").unlink()
    found = static_pods.devices(running.host())
    assert (found.verdict, found.evidence) == (
        Verdict.WARNING,
        f"not running, and without isolated CPUs: {MAIN} has 0 of 2 windriver.com/isolcpus",
    )


def test_pod_that_has_ended_is_ok(running: MadeUpHost, manifests: Path) -> None:
    (manifests / "forwarder.yaml").write_text(f"{POD}  restartPolicy: Never\n")
    (running.directory / "proc/100/cgroup").write_text("0::/\n")
    assert static_pods.devices(running.host()).verdict is Verdict.OK


def test_pod_is_unknown_without_log_links(running: MadeUpHost) -> None:
    for link in (running.directory / "containers").iterdir():
        link.unlink()
    found = static_pods.devices(running.host())
    assert found.verdict is Verdict.UNKNOWN
    assert found.evidence.startswith(f"{MAIN} has 0 of 2 windriver.com/isolcpus; whether they run")


def test_pod_is_unknown_without_the_kubelet(running: MadeUpHost) -> None:
    running.unseen = ("CPU owners: the kubelet does not answer",)
    with pytest.raises(files.Unseen, match="the kubelet does not answer"):
        static_pods.devices(running.host())


def test_hosts_without_static_pods_need_no_kubelet(made_up: MadeUpHost, manifests: Path) -> None:
    (manifests / "apiserver.yaml").write_text(POD.replace("windriver.com", "example.com"))
    made_up.unseen = ("CPU owners: the kubelet does not answer",)
    found = static_pods.devices(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, "no static pod requests isolated CPUs")


# Where the manifests are


def move(running: MadeUpHost, name: str) -> Path:
    """Moves the manifests to a directory next to the kubelet's; returns its path."""
    return (running.directory / "static").rename(running.directory / name)


def test_command_line_names_the_manifests_and_the_node(running: MadeUpHost) -> None:
    directory = move(running, "elsewhere")
    assert static_pods.devices(running.host()).verdict is Verdict.OK
    running.process(90, "kubelet", "0-1,4-5")
    running.proc(
        "90/cmdline", f"kubelet\0--pod-manifest-path={directory}\0--hostname-override=Edge-1"
    )
    running.listed = {"fast/forwarder-edge-1/main"}
    running.contains(100, "a", "fast/forwarder-edge-1/main")
    found = static_pods.devices(running.host())
    assert "fast/forwarder-edge-1/main has 0 of 2" in found.evidence


def test_relative_path_is_below_the_kubelets_configuration(running: MadeUpHost) -> None:
    move(running, "kubelet/pods.d")
    running.kubelet("config.yaml", "staticPodPath: pods.d")
    assert static_pods.devices(running.host()).verdict is Verdict.PROBLEM


def test_path_may_be_one_manifest(running: MadeUpHost, manifests: Path) -> None:
    running.kubelet("config.yaml", f"staticPodPath: {manifests}/forwarder.yaml")
    assert static_pods.devices(running.host()).verdict is Verdict.PROBLEM


def test_default_directory_is_read_if_nothing_is_known(running: MadeUpHost) -> None:
    move(running, "manifests")
    (running.directory / "kubelet/config.yaml").unlink()
    assert static_pods.devices(running.host()).verdict is Verdict.PROBLEM


def test_kubelet_without_static_pods_has_none(running: MadeUpHost) -> None:
    move(running, "manifests")
    running.kubelet("config.yaml", "cpuManagerPolicy: none")
    assert static_pods.devices(running.host()).verdict is Verdict.OK


@pytest.mark.parametrize("name", [".forwarder.yaml", "old/forwarder.yaml"])
def test_hidden_files_and_directories_are_ignored(
    running: MadeUpHost, manifests: Path, name: str
) -> None:
    (manifests / name).parent.mkdir(exist_ok=True)
    (manifests / "forwarder.yaml").rename(manifests / name)
    os.mkfifo(manifests / "pipe")
    (manifests / "dangling").symlink_to("nowhere")
    assert static_pods.devices(running.host()).verdict is Verdict.OK


# What is in a manifest


def test_manifest_may_be_json(running: MadeUpHost, manifests: Path) -> None:
    container = {"name": "main", "resources": {"requests": {"windriver.com/isolcpus": "2"}}}
    metadata = {"name": "forwarder", "namespace": "fast"}
    pod = {"kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    text = json.dumps(pod, indent="\t").replace("/", "\\/")
    (manifests / "forwarder.yaml").write_text(text)
    assert static_pods.devices(running.host()).verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    "text",
    [
        POD.replace("kind: Pod", "kind: Deployment"),
        POD.replace("windriver.com/isolcpus: 2", "windriver.com/isolcpus: 0"),
        POD.replace("isolcpus: 2", "isolcpus-other: 2"),
        f"kind: List\n---\n{POD}",
        "- windriver.com/isolcpus",
    ],
)
def test_manifest_that_requests_nothing_is_ok(
    running: MadeUpHost, manifests: Path, text: str
) -> None:
    (manifests / "forwarder.yaml").write_text(text)
    found = static_pods.devices(running.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, "no static pod requests isolated CPUs")


def test_sidecar_of_another_resource_is_checked(running: MadeUpHost, manifests: Path) -> None:
    second = PoolConfig("Pool dpdk", "example.com/dpdk", frozenset({7}))
    running.config = Config(pools=(PoolConfig(), second))
    (manifests / "forwarder.yaml").write_text(
        "kind: Pod\nmetadata: {name: forwarder}\nspec:\n  initContainers:\n  - name: poller\n"
        "    restartPolicy: Always\n    resources: {limits: {example.com/dpdk: '1'}}\n"
        "  containers: [{name: main}]\n"
    )
    running.listed = {"default/forwarder-worker/poller", "default/forwarder-worker/main"}
    running.contains(100, "a", "default/forwarder-worker/poller")
    found = static_pods.devices(running.host())
    assert "default/forwarder-worker/poller has 0 of 1 example.com/dpdk" in found.evidence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (POD.replace("limits: {", "limits: ["), "is not valid YAML: while parsing"),
        (f"{POD}  since: 2026-99-99\n", "is not valid YAML: month must be"),
        (f"{'[' * 5000} windriver.com/isolcpus", "is not read: it has more than"),
        (POD.replace("isolcpus: 2", "isolcpus: many"), "is not the manifest of a pod: "),
        ("kind: Pod\nspec: {containers: windriver.com/isolcpus}", "is not the manifest of a pod: "),
        ("kind: Pod\nmetadata: windriver.com/isolcpus\nspec: 7", "is not the manifest of a pod: "),
        (f"{POD}#{' ' * (1 << 20)}", "is not read: it has more than 1 MiB"),
    ],
    ids=["braces", "date", "depth", "quantity", "containers", "metadata", "size"],
)
def test_manifest_that_cannot_be_used_is_unknown(
    made_up: MadeUpHost, manifests: Path, text: str, sentence: str
) -> None:
    (manifests / "broken.yaml").write_text(text)
    [result] = table.run(made_up.host(), ["static-pods"])
    assert result.finding.verdict is Verdict.UNKNOWN
    assert result.finding.evidence.startswith(f"{manifests}/broken.yaml {sentence}")


def test_problem_is_shown_beside_a_broken_manifest(running: MadeUpHost, manifests: Path) -> None:
    (manifests / "broken.yaml").write_text("{ windriver.com/isolcpus")
    assert static_pods.devices(running.host()).verdict is Verdict.PROBLEM


def test_json_needs_no_pyyaml(
    made_up: MadeUpHost, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.kubelet("config.yaml", json.dumps({"staticPodPath": str(manifests)}))
    (manifests / "pod.json").write_text('{"kind": "Pod", "windriver.com/isolcpus": 1}')
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "is not the manifest of a pod" in static_pods.devices(made_up.host()).evidence
    (manifests / "pod.json").write_text(POD)
    assert "install python3-yaml" in static_pods.devices(made_up.host()).evidence


def test_names_cannot_send_control_characters(running: MadeUpHost, manifests: Path) -> None:
    (manifests / "forwarder.yaml").rename(manifests / "\033[2J.yaml")
    [result] = table.run(running.host(), ["static-pods"])
    assert "\033" not in result.finding.advice
    assert "?[2J.yaml" in result.finding.advice
