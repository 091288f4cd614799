"""The kubelet's root directory: who names it, and who is trusted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.host import sockets
from isolcpus_dp.kubelet import paths, podresources, root
from isolcpus_dp.kubelet.rancher import Places
from isolcpus_dp.report import snapshot
from tests.unit.conftest import MakeUp

K0S = Path("/var/lib/k0s/kubelet")


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Takes the place of /var/lib/kubelet."""
    monkeypatch.setattr(paths, "DEFAULT_DIRECTORY", tmp_path / "usual")
    (tmp_path / "usual/device-plugins").mkdir(parents=True)
    return tmp_path / "usual"


@pytest.fixture
def listening(usual: Path) -> Iterator[None]:
    """This process listens on the socket for device plugins."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(usual / "device-plugins/kubelet.sock"))
        listener.listen()
        yield


def write_process(proc: Path, arguments: str, uid: int = 0) -> None:
    """What /proc shows of this process."""
    directory = proc / str(os.getpid())
    directory.mkdir(parents=True)
    (directory / "status").write_text(f"Name:\tany\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (directory / "cmdline").write_text(arguments)


def test_usual_directory_is_the_root_without_a_kubelet(usual: Path, tmp_path: Path) -> None:
    assert root.find(usual, None, tmp_path) == usual


@pytest.mark.usefixtures("listening")
def test_running_kubelet_names_its_root(usual: Path, tmp_path: Path) -> None:
    write_process(tmp_path / "proc", f"/var/lib/k0s/bin/kubelet\0--root-dir={K0S}\0--v=1\0")
    assert root.find(usual, None, tmp_path / "proc") == K0S


@pytest.mark.usefixtures("listening")
def test_root_in_the_configuration_of_k3s_is_read(usual: Path, tmp_path: Path) -> None:
    write_process(tmp_path / "proc", "/usr/local/bin/k3s server\0\0")
    (tmp_path / "proc" / str(os.getpid()) / "comm").write_text("k3s-server\n")
    (tmp_path / "etc/k3s").mkdir(parents=True)
    (tmp_path / "etc/k3s/config.yaml").write_text("kubelet-arg: [root-dir=/data/kubelet]\n")
    places = Places(tmp_path / "etc", tmp_path / "lib")
    assert root.find(usual, None, tmp_path / "proc", places) == Path("/data/kubelet")


@pytest.mark.usefixtures("listening")
def test_running_kubelet_without_the_option_has_the_usual_root(usual: Path, tmp_path: Path) -> None:
    write_process(tmp_path / "proc", "kubelet\0--v=1\0")
    assert root.find(usual, None, tmp_path / "proc") == usual


@pytest.mark.usefixtures("listening")
def test_process_of_another_user_names_no_root(usual: Path, tmp_path: Path) -> None:
    write_process(tmp_path / "proc", "kubelet\0--root-dir=/tmp/mine\0", uid=1000)
    assert root.find(usual, None, tmp_path / "proc") == usual


@pytest.mark.usefixtures("listening")
def test_configured_root_comes_before_the_running_kubelets(usual: Path, tmp_path: Path) -> None:
    write_process(tmp_path / "proc", "kubelet\0--root-dir=/data/kubelet\0")
    assert root.find(usual, K0S, tmp_path / "proc") == K0S


def test_kubelet_dir_of_the_command_line_is_the_root(usual: Path, tmp_path: Path) -> None:
    assert root.find(tmp_path / "other", None, tmp_path) == tmp_path / "other"
    assert root.find(tmp_path / "other", K0S, tmp_path) == K0S


def test_device_plugins_do_not_move_with_the_root() -> None:
    assert paths.registration_socket(paths.DEFAULT_DIRECTORY) == Path(
        "/var/lib/kubelet/device-plugins/kubelet.sock"
    )
    assert paths.pod_resources_socket(K0S) == K0S / "pod-resources/kubelet.sock"
    assert paths.cpu_manager_state(K0S) == K0S / "cpu_manager_state"
    assert paths.pods(K0S) == K0S / "pods"


def test_snapshot_asks_the_kubelet_in_its_root(
    make_up: MakeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look(directory: Path) -> podresources.Listing:
        asked.append(directory)
        return podresources.Listing(frozenset(), ())

    monkeypatch.setattr(podresources, "look", look)
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text(f"[Kubelet]\nRootDirectory={K0S}\n")
    seen = snapshot.take(make_up("1x4x2", {2, 3}).root, file, tmp_path)
    assert (asked, seen.kubelet_root, seen.unseen) == ([K0S], K0S, ())


def test_missing_socket_in_the_usual_root_names_the_key(usual: Path, tmp_path: Path) -> None:
    with pytest.raises(podresources.Unseen) as error:
        podresources.look(usual)
    assert str(error.value) == (
        f"{usual}/pod-resources/kubelet.sock does not exist: is the kubelet running? If its root"
        " directory is another one, set RootDirectory= in [Kubelet], see isolcpus-dp.conf(5)"
    )
    with pytest.raises(podresources.Unseen, match=r"is the kubelet running\?$"):
        podresources.look(tmp_path / "other")


@pytest.mark.usefixtures("listening")
def test_listener_is_the_process_that_listens(usual: Path) -> None:
    assert sockets.listener(usual / "device-plugins/kubelet.sock") == os.getpid()
    assert sockets.listener(usual / "other.sock") is None
