"""The settings of the kubelet in k3s and RKE2."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.report.check import files, kubelet, kubelet_settings
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

RESERVED = "reservedSystemCPUs: 0,2-3,6-7"


def start(
    made_up: MadeUpHost, name: str = "k3s-server", cmdline: str = "/usr/local/bin/k3s server"
) -> None:
    """Starts k3s as process 70. It replaces its command line by its first two words."""
    made_up.process(70, name, "0-1,4-5")
    made_up.proc("70/cmdline", f"{cmdline}\0\0\0")


def write(made_up: MadeUpHost, name: str, text: str) -> Path:
    path = made_up.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def evidence(made_up: MadeUpHost) -> str:
    return kubelet.reserved_cpus(made_up.host()).evidence


@pytest.mark.parametrize(
    ("name", "cmdline"),
    [
        ("k3s-server", "/usr/local/bin/k3s server"),
        ("k3s-agent", "/usr/local/bin/k3s agent"),
        ("k3s", "/usr/local/bin/k3s\0agent"),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "kubelet-arg: reserved-cpus=0,2-3,6-7",
        "kubelet-arg:\n- v=2\n- --reserved-cpus=0,2-3,6-7",
        'kubelet-arg: ["reserved-cpus=1", "reserved-cpus=0,2-3,6-7"]',
    ],
)
def test_kubelet_arg_of_k3s_is_read(
    made_up: MadeUpHost, name: str, cmdline: str, text: str
) -> None:
    start(made_up, name, cmdline)
    write(made_up, "etc-rancher/k3s/config.yaml", text)
    assert evidence(made_up).startswith("reservedSystemCPUs is 0,2-3,6-7;")


def test_k3s_without_settings_is_a_problem(made_up: MadeUpHost) -> None:
    start(made_up)
    assert evidence(made_up).startswith("reservedSystemCPUs is not set: ")


def test_drop_ins_of_k3s_replace_or_add_to_a_list(made_up: MadeUpHost) -> None:
    start(made_up)
    write(made_up, "etc-rancher/k3s/config.yaml", "kubelet-arg: [reserved-cpus=1]")
    directory = "etc-rancher/k3s/config.yaml.d"
    write(made_up, f"{directory}/10.yaml", "kubelet-arg+: [cpu-manager-policy=static]")
    write(made_up, f"{directory}/20.txt", "kubelet-arg: []")
    assert kubelet_settings.read(made_up.host())["reservedSystemCPUs"] == "1"
    assert kubelet_settings.read(made_up.host())["cpuManagerPolicy"] == "static"
    write(made_up, f"{directory}/30.yml", "kubelet-arg: [reserved-cpus=5]")
    settings = kubelet_settings.read(made_up.host())
    assert settings["reservedSystemCPUs"] == "5"
    assert "cpuManagerPolicy" not in settings


@pytest.mark.parametrize(
    ("role", "unit"), [("server", "k3s.service"), ("agent", "k3s-agent.service")]
)
def test_command_line_of_the_unit_comes_after_the_files(
    made_up: MadeUpHost, role: str, unit: str
) -> None:
    start(made_up, "k3s", f"/usr/local/bin/k3s {role}")
    write(made_up, "etc-rancher/k3s/config.yaml", "kubelet-arg: [reserved-cpus=1, v=2]")
    made_up.units[unit] = {
        "ExecStart": "{ path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server"
        " --kubelet-arg=reserved-cpus=0,2-3,6-7 --kubelet-arg cpu-manager-policy=static"
        " ; ignore_errors=no ; start_time=[n/a] }"
    }
    settings = kubelet_settings.read(made_up.host())
    assert settings["reservedSystemCPUs"] == "0,2-3,6-7"
    assert settings["cpuManagerPolicy"] == "static"


def test_files_that_k3s_gives_to_the_kubelet_are_read(made_up: MadeUpHost, tmp_path: Path) -> None:
    """Since 1.32: its own, copies of those that kubelet-arg names, and those of the operator."""
    start(made_up)
    directory = "lib-rancher/k3s/agent/etc/kubelet.conf.d"
    write(made_up, f"{directory}/00-k3s-defaults.conf", "staticPodPath: /pods\ncpuManagerPolicy: a")
    write(made_up, f"{directory}/10-cli-config.conf", "cpuManagerPolicy: b")
    write(made_up, f"{directory}/20-cli-config-dir/a.conf", "cpuManagerPolicy: static")
    write(made_up, f"{directory}/50-own.conf", RESERVED)
    write(
        made_up,
        "etc-rancher/k3s/config.yaml",
        f"kubelet-arg: [config={tmp_path}/absent.yaml, config-dir=/absent]",
    )
    assert kubelet_settings.read(made_up.host()) == {
        "staticPodPath": "/pods",
        "cpuManagerPolicy": "static",
        "reservedSystemCPUs": "0,2-3,6-7",
        "--config-dir": str(made_up.directory / directory),
    }


def test_older_k3s_gives_the_kubelets_file_to_it(made_up: MadeUpHost) -> None:
    start(made_up)
    file = write(made_up, "kubelet.yaml", RESERVED)
    write(made_up, "etc-rancher/k3s/config.yaml", f"kubelet-arg: config={file}\nnode-name: One")
    host = made_up.host()
    assert kubelet.reserved_cpus(host).verdict is Verdict.OK
    assert kubelet_settings.node_name(host) == "one"
    assert kubelet_settings.static_pod_path(host) == (
        made_up.directory / "lib-rancher/k3s/agent/pod-manifests"
    )


def test_data_and_configuration_can_be_in_other_places(made_up: MadeUpHost) -> None:
    start(made_up)
    file = write(made_up, "own/k3s.yaml", f"data-dir: {made_up.directory}/data")
    write(made_up, "data/agent/etc/kubelet.conf.d/50.conf", RESERVED)
    made_up.proc("70/environ", f"PATH=/usr/bin\0K3S_CONFIG_FILE={file}\0")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


def test_root_directory_of_k3s_has_the_state_file(made_up: MadeUpHost) -> None:
    start(made_up)
    write(made_up, "etc-rancher/k3s/config.yaml", f"kubelet-arg: root-dir={made_up.directory}/r")
    write(made_up, "r/cpu_manager_state", '{"policyName": "none"}')
    assert kubelet.cpu_manager(made_up.host()).evidence == (
        f"policy none; {made_up.directory}/r/cpu_manager_state gives no isolated CPU to a container"
    )


def test_rke2s_own_kubelet_comes_before_its_configuration(made_up: MadeUpHost) -> None:
    start(made_up, "rke2", "/usr/local/bin/rke2 server")
    write(made_up, "etc-rancher/rke2/config.yaml", "kubelet-arg: reserved-cpus=1")
    assert evidence(made_up).startswith("reservedSystemCPUs is 1: ")
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--reserved-cpus=0,2-3,6-7\0")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_configuration_is_read_while_nothing_runs(made_up: MadeUpHost, name: str) -> None:
    write(made_up, f"etc-rancher/{name}/config.yaml", "kubelet-arg: reserved-cpus=1")
    assert evidence(made_up).startswith("reservedSystemCPUs is 1: ")
    # kubeadm's file means that the host is not one of theirs.
    made_up.kubelet("config.yaml", RESERVED)
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


def test_other_commands_and_users_of_k3s_are_ignored(made_up: MadeUpHost) -> None:
    start(made_up, "k3s", "/usr/local/bin/k3s\0kubectl")
    made_up.process(71, "k3s-server", "0-1,4-5", uids="1000 1000 1000 1000")
    made_up.proc("71/cmdline", "k3s-server\0server\0--kubelet-arg=reserved-cpus=2-3,6-7\0")
    with pytest.raises(files.Unseen, match=r"config\.yaml does not exist"):
        kubelet.reserved_cpus(made_up.host())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "is not valid YAML"), ("a: 1", "is not trusted: users other than root can write")],
)
def test_configuration_that_cannot_be_used_is_unknown(
    made_up: MadeUpHost, text: str, sentence: str
) -> None:
    start(made_up)
    file = write(made_up, "etc-rancher/k3s/config.yaml", text)
    if text == "a: 1":
        file.chmod(0o666)
    with pytest.raises(files.Unseen, match=f"^{file} {sentence}"):
        kubelet.reserved_cpus(made_up.host())


def test_configuration_at_an_address_is_not_fetched(made_up: MadeUpHost) -> None:
    start(made_up)
    made_up.proc("70/environ", "K3S_CONFIG_FILE=https://192.0.2.1/config.yaml\0")
    with pytest.raises(files.Unseen, match=r"from https://192\.0\.2\.1/config\.yaml, which is not"):
        kubelet.reserved_cpus(made_up.host())
