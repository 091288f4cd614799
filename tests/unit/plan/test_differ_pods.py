"""How a host's kubelet and container runtime differ from the plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isolcpus_dp.plan import kubelet, survey, wish
from isolcpus_dp.plan.kubelet import Kubelet
from isolcpus_dp.plan.survey import Known
from isolcpus_dp.report.check.start.facts import Facts
from isolcpus_dp.simulator.machine import described, parse_shape

from .cases import DEBIAN
from .planned import CONTAINERD, PlannedHost

DROP_IN = "90-isolcpus-dp.conf"
STATE = '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedHost:
    """A kubelet with --config-dir, and containerd that imports files."""
    monkeypatch.setattr(survey, "PROGRAMS", str(tmp_path / "bin"))
    planned = PlannedHost(tmp_path)
    planned.kubelet(f"--config-dir={planned.drop_ins}")
    planned.program("containerd", "containerd github.com/containerd/containerd v1.7.24 abc")
    planned.put({"etc/containerd/config.toml": CONTAINERD})
    planned.write()
    return planned


def test_kubelet_and_runtime_as_planned_have_no_differences(host: PlannedHost) -> None:
    assert (host.drop_ins / DROP_IN).read_text().splitlines()[3:] == [
        'reservedSystemCPUs: "0-3"',
        'cpuManagerPolicy: "static"',
        "cpuManagerPolicyOptions:",
        '  strict-cpu-reservation: "true"',
    ]
    assert host.differences() == []


def test_kubelet_that_does_not_read_the_file_is_reported(host: PlannedHost) -> None:
    host.kubelet()
    host.write()
    assert host.differences() == [
        "the kubelet does not read /etc/kubernetes/kubelet.conf.d/90-isolcpus-dp.conf, and has"
        " another reservedSystemCPUs and cpuManagerPolicy and cpuManagerPolicyOptions: set"
        " KUBELET_EXTRA_ARGS=--config-dir=/etc/kubernetes/kubelet.conf.d in /etc/default/kubelet"
        " (kubeadm), or add --config-dir=/etc/kubernetes/kubelet.conf.d to ExecStart= of"
        " kubelet.service, so that the kubelet reads the file"
    ]


def test_kubelet_whose_configuration_has_all_settings_needs_no_file(host: PlannedHost) -> None:
    host.kubelet()
    host.write()
    settings = (host.drop_ins / DROP_IN).read_text().replace("0-3", "3,0-2")
    host.put({"var/lib/kubelet/config.yaml": settings})
    assert host.differences() == []


def test_kubelet_without_the_flag_needs_the_settings_elsewhere(host: PlannedHost) -> None:
    host.kubelet(version="1.29.4")
    host.write()
    [sentence] = host.differences()
    assert sentence.endswith(
        "has another reservedSystemCPUs and cpuManagerPolicy: this kubelet has no --config-dir"
        " (Kubernetes 1.30 and newer): copy the settings of the file to its configuration,"
        f" {host.root}/var/lib/kubelet/config.yaml"
    )


def test_flag_that_overrides_the_file_is_reported(host: PlannedHost) -> None:
    host.kubelet(f"--config-dir={host.drop_ins}", "--cpu-manager-policy=none")
    host.write()
    assert host.differences() == [
        f"the kubelet's command line has --cpu-manager-policy, which overrides {host.drop_ins}/"
        f"{DROP_IN}: remove it there"
    ]
    host.kubelet(f"--config-dir={host.drop_ins}", "--cpu-manager-policy=static")
    host.write()
    assert host.differences() == []


def test_flag_that_the_file_cannot_remove_is_reported(host: PlannedHost) -> None:
    host.kubelet(f"--config-dir={host.drop_ins}", "--system-reserved-cgroup=/system.slice")
    host.write()
    assert host.differences() == [
        "the kubelet's command line has --system-reserved-cgroup, which overrides"
        f" {host.drop_ins}/{DROP_IN}: remove it there"
    ]


def test_policy_that_is_the_default_needs_no_setting() -> None:
    """A kubelet that knows no option for so many NUMA nodes gets the policy none."""
    goal = wish.apply(described(parse_shape("9x2x1")), wish.Wish())[0]
    settings = {"reservedSystemCPUs": "0-17", "cpuManagerPolicy": "static"}
    facts = Facts(settings, goal.machine, frozenset(range(9)))
    known = Known(DEBIAN, Kubelet(facts, flags={}, version=(1, 30)))
    assert "topologyManagerPolicy: " in kubelet.part(goal, DEBIAN, known.kubelet).files[0].text
    assert list(kubelet.differences(goal, known, Path("/nonexistent"))) == []


def test_later_drop_in_that_overrides_the_file_is_reported(host: PlannedHost) -> None:
    (host.drop_ins / "95-own.conf").write_text("cpuManagerPolicy: none\n")
    assert host.differences() == [
        f"a later file in {host.drop_ins} overrides cpuManagerPolicy: remove it there"
    ]
    (host.drop_ins / "95-own.conf").rename(host.drop_ins / "80-own.conf")
    assert host.differences() == []


def test_file_that_was_not_written_is_the_only_difference(host: PlannedHost) -> None:
    (host.drop_ins / DROP_IN).unlink()
    assert host.differences() == [f"{host.drop_ins}/{DROP_IN} is missing"]


def test_state_file_that_must_go_is_reported(host: PlannedHost) -> None:
    state = host.root / "var/lib/kubelet/cpu_manager_state"
    state.write_text(STATE)
    assert host.differences() == [
        f"with {state} and the planned settings, the kubelet does not start: drain the node, run"
        f" systemctl stop kubelet and rm -f {state}, and reboot"
    ]


def test_kubelet_that_is_not_running_is_unknown(host: PlannedHost) -> None:
    shutil.rmtree(host.root / "proc/50")
    host.write()
    assert host.differences() == [
        f"no kubelet is running: whether it reads /etc/kubernetes/kubelet.conf.d/{DROP_IN} is not"
        " known"
    ]


def test_kubelet_that_is_not_set_up_yet_is_no_difference(host: PlannedHost) -> None:
    shutil.rmtree(host.root / "proc/50")
    shutil.rmtree(host.root / "var/lib/kubelet")
    host.write()
    assert host.plan().notes[0].startswith("The kubelet's settings are not known: ")
    assert host.differences() == []


def test_settings_that_cannot_be_read_are_unknown(host: PlannedHost) -> None:
    host.put({"var/lib/kubelet/config.yaml": "a: ["})
    host.write()
    [sentence] = host.differences()
    assert sentence.startswith("the kubelet's settings are not known: ")


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (
            "version = 2",
            "run sed -i '1i imports = [\"/etc/containerd/conf.d/*.toml\"]'"
            " /etc/containerd/config.toml",
        ),
        (
            "",
            "run printf 'version = 2\\nimports = [\"/etc/containerd/conf.d/*.toml\"]\\n' >"
            " /etc/containerd/config.toml",
        ),
        ("imports = []", 'add "/etc/containerd/conf.d/*.toml" to imports in'),
        ('imports = ["/etc/containerd/own.toml"]', 'add "/etc/containerd/conf.d/*.toml" to'),
        ('# imports = ["/etc/containerd/conf.d/*.toml"]', "run sed -i '1i imports = ["),
    ],
)
def test_configuration_that_does_not_import_the_file_is_reported(
    host: PlannedHost, config: str, advice: str
) -> None:
    host.put({"etc/containerd/config.toml": config})
    [sentence] = host.differences()
    assert sentence.startswith(
        "/etc/containerd/config.toml does not import"
        f" /etc/containerd/conf.d/90-isolcpus-dp.toml: {advice}"
    )


@pytest.mark.parametrize(
    "config",
    [
        CONTAINERD,
        "imports = ['conf.d/*']  # all",
        'imports = [\n  "/etc/[a-b]/*", # "x"\n  "/etc/containerd/conf.d/90-isolcpus-dp.toml"]',
    ],
)
def test_any_pattern_that_matches_imports_the_file(host: PlannedHost, config: str) -> None:
    host.put({"etc/containerd/config.toml": config})
    assert host.differences() == []


def test_runtime_without_nri_is_reported(host: PlannedHost) -> None:
    host.program("containerd", "containerd github.com/containerd/containerd v1.6.24 abc")
    host.write()
    assert host.differences() == ["containerd 1.6 has no NRI: install 1.7 or newer"]
    host.program("containerd", "containerd github.com/containerd/containerd v2.1.0 abc")
    assert host.differences() == []


def test_file_of_an_older_containerd_is_left(host: PlannedHost) -> None:
    path = "/etc/containerd/conf.d/90-isolcpus-dp.toml"
    host.program("containerd", "containerd github.com/containerd/containerd v2.1.0 abc")
    assert host.differences() == [f"{path} is left from an earlier plan"]
    host.write()
    assert not (host.root / path.lstrip("/")).exists()
    assert host.differences() == []
