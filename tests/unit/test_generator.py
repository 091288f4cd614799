"""The systemd generator: which order it sets for units of the kubelet, in made-up file systems."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from isolcpus_dp.service import units

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "systemd/isolcpus-dp-generator"

VENDOR = "usr/lib/systemd/system"
ETC = "etc/systemd/system"
RUN = "run/systemd/system"
ORDER = "isolcpus-dp.service.d/kubelet-order.conf"

SIMPLE = "[Service]\nType=simple\n"
NOTIFY = "[Service]\nType=notify\n"
COMMENT = (
    "# Written by isolcpus-dp-generator, in place of the file with this name in\n"
    "# /usr/lib/systemd/system/isolcpus-dp.service.d.\n"
)
KUBELET_LATER = f"{COMMENT}[Unit]\nBefore=kubelet.service\nAfter=k3s-agent.service\n"

Files = dict[str, str]  # by path: the text of a file, or a Link


class Link(str):
    """The target of a symbolic link."""


def write(root: Path, files: Files) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content)
        else:
            # Not write_text(), which would replace the ends of lines.
            path.write_bytes(content.encode())


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the packaged unit."""
    root = tmp_path / "root"
    for name in ("isolcpus-dp.service", ORDER):
        write(root, {f"{VENDOR}/{name}": (ROOT / "systemd" / name).read_text()})
    return root


def run(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs the generator, as systemd does, on a file system beside its output directory."""
    output = root.parent / "generator"
    output.mkdir(exist_ok=True)
    return subprocess.run(
        [GENERATOR, output, f"{output}.early", f"{output}.late", root],
        capture_output=True,
        text=True,
    )


def generated(root: Path, files: Files) -> dict[str, str]:
    """By path: what the generator has written on a file system that also has these files."""
    write(root, files)
    before = contents(root)
    ended = run(root)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert contents(root) == before
    return {name: text.decode() for name, text in contents(root.parent / "generator").items()}


def is_notify(root: Path, files: Files) -> bool:
    """Whether the generator has taken kubelet.service for a unit of Type=notify."""
    written = generated(root, files)
    assert written in ({}, {ORDER: KUBELET_LATER})
    return bool(written)


TEXTS = {
    "notify": (NOTIFY, True),
    "notify-reload": ("[Service]\nType=notify-reload\n", True),
    "simple": (SIMPLE, False),
    "no type": ("[Service]\nExecStart=/usr/bin/kubelet\n", False),
    "the last one counts": ("[Service]\nType=notify\nType=exec\n", False),
    "the last one counts, in a second section": (f"{SIMPLE}[Unit]\n\n{NOTIFY}", True),
    "an unknown type is ignored": ("[Service]\nType=notify\nType=notified\n", True),
    "an empty type is ignored": ("[Service]\nType=notify\nType=\n", True),
    "a comment is not part of a value": ("[Service]\nType=notify # ready\n", False),
    "keys are case-sensitive": ("[Service]\ntype=notify\n", False),
    "sections are case-sensitive": ("[service]\nType=notify\n", False),
    "another section": ("[Unit]\nType=notify\n[Service]\nExecStart=/bin/true\n", False),
    "an unknown section": ("[X-Service]\nType=notify\n[Service]\nExecStart=/bin/true\n", False),
    "no section": (f"Type=notify\n{SIMPLE}", False),
    "white space": (" [Service] \n\t Type \t= notify\t \n", True),
    "white space in a name": ("[ Service ]\nType=notify\n[Service]\nExecStart=/bin/true\n", False),
    "comments": ("[Service]\n#Type=notify\n  ; Type=notify\nExecStart=/bin/true\n", False),
    "a comment is not continued": ("[Service]\n# kubelet \\\nType=notify\n", True),
    "continued": ("[Service]\nType=\\\nnotify\n", True),
    "continued twice": ("[Service]\nType\\\n=\\\n  notify\n", True),
    "continued after a comment": ("[Service]\nType=\\\n# ready\n; ready\nnotify\n", True),
    "continued to an empty line": ("[Service]\nExecStart=/bin/true \\\n\nType=notify\n", True),
    "a part of another value": ("[Service]\nExecStart=/bin/echo \\\nType=notify\n", False),
    "a backslash that is escaped": ("[Service]\nExecStart=/bin/echo \\\\\nType=notify\n", True),
    "three backslashes": ("[Service]\nExecStart=/bin/echo \\\\\\\nType=notify\n", False),
    "a backslash before a space": ("[Service]\nExecStart=/bin/echo \\ \nType=notify\n", True),
    "continued to the end of the file": ("[Service]\nExecStart=/bin/true\nType=notify\\", True),
    "no newline at the end": ("[Service]\nType=notify", True),
    "line ends of DOS": ("[Service]\r\nType=\\\r\nnotify\r\n", True),
    "lines without a meaning": ("[Service]\n=notify\nnotify\n\nType=notify\n", True),
    "shell characters": ('[Service]\nExecStart=/bin/sh -c "$(x) `x` * \'x"\nType=notify\n', True),
}


@pytest.mark.parametrize(("text", "notify"), TEXTS.values(), ids=TEXTS)
def test_unit_file_is_read_as_systemd_reads_it(root: Path, text: str, notify: bool) -> None:
    assert is_notify(root, {f"{VENDOR}/kubelet.service": text}) is notify


DROP_IN = "kubelet.service.d/type.conf"
FILES: dict[str, tuple[Files, bool]] = {
    "no unit": ({}, False),
    "only drop-ins": ({f"{ETC}/{DROP_IN}": NOTIFY}, False),
    "another unit": ({f"{VENDOR}/kubelet-1.service": NOTIFY}, False),
    **{
        f"a unit in {directory}": (
            {f"{directory}/kubelet.service": NOTIFY, f"{lower}/kubelet.service": SIMPLE},
            True,
        )
        for directory, lower in (
            ("etc/systemd/system.control", ETC),
            ("run/systemd/system.control", ETC),
            ("run/systemd/transient", ETC),
            (ETC, RUN),
            (RUN, VENDOR),
            ("usr/local/lib/systemd/system", VENDOR),
            (VENDOR, "lib/systemd/system"),
        )
    },
    "a unit in lib": ({"lib/systemd/system/kubelet.service": NOTIFY}, True),
    "a simple unit in etc": (
        {f"{ETC}/kubelet.service": SIMPLE, f"{VENDOR}/kubelet.service": NOTIFY},
        False,
    ),
    "a masked unit": (
        {f"{ETC}/kubelet.service": Link("/dev/null"), f"{VENDOR}/kubelet.service": NOTIFY},
        False,
    ),
    "an empty unit file": (
        {f"{RUN}/kubelet.service": "", f"{VENDOR}/kubelet.service": NOTIFY},
        False,
    ),
    "a masked unit with a drop-in": (
        {f"{ETC}/kubelet.service": Link("/dev/null"), f"{ETC}/{DROP_IN}": NOTIFY},
        False,
    ),
    "a broken link": (
        {f"{ETC}/kubelet.service": Link("/opt/absent"), f"{VENDOR}/kubelet.service": NOTIFY},
        False,
    ),
    "a link to itself": (
        {f"{ETC}/kubelet.service": Link("kubelet.service"), f"{VENDOR}/kubelet.service": NOTIFY},
        True,
    ),
    "a linked unit": (
        {f"{ETC}/kubelet.service": Link("/opt/kubelet.service"), "opt/kubelet.service": NOTIFY},
        True,
    ),
    "an alias": (
        {
            f"{ETC}/kubelet.service": Link(f"/{VENDOR}/snap.kubelet.service"),
            f"{VENDOR}/snap.kubelet.service": NOTIFY,
        },
        True,
    ),
    "a drop-in of an alias": (
        {
            f"{ETC}/kubelet.service": Link(f"../../../{VENDOR}/snap.kubelet.service"),
            f"{VENDOR}/snap.kubelet.service": SIMPLE,
            f"{ETC}/snap.kubelet.service.d/type.conf": NOTIFY,
        },
        True,
    ),
    "a drop-in": ({f"{VENDOR}/kubelet.service": SIMPLE, f"{ETC}/{DROP_IN}": NOTIFY}, True),
    "a drop-in with other settings": (
        {f"{VENDOR}/kubelet.service": NOTIFY, f"{ETC}/{DROP_IN}": "[Service]\nRestart=always\n"},
        True,
    ),
    "a section does not go on in a drop-in": (
        {f"{VENDOR}/kubelet.service": SIMPLE, f"{ETC}/{DROP_IN}": "Type=notify\n"},
        False,
    ),
    "a broken section ends a drop-in": (
        {f"{VENDOR}/kubelet.service": SIMPLE, f"{ETC}/{DROP_IN}": f"{NOTIFY}[Service\n{SIMPLE}"},
        True,
    ),
    **{
        f"a drop-in in {directory}": (
            {f"{ETC}/kubelet.service": SIMPLE, f"{directory}/{DROP_IN}": NOTIFY},
            True,
        )
        for directory in (
            "etc/systemd/system.control",
            "run/systemd/system.control",
            "run/systemd/transient",
            RUN,
            "usr/local/lib/systemd/system",
            VENDOR,
            "lib/systemd/system",
        )
    },
    "the last name counts, not the directory": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/kubelet.service.d/10-type.conf": SIMPLE,
            f"{VENDOR}/kubelet.service.d/20-type.conf": NOTIFY,
        },
        True,
    ),
    "names are sorted by bytes": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/kubelet.service.d/Z.conf": SIMPLE,
            f"{ETC}/kubelet.service.d/a.conf": NOTIFY,
            f"{ETC}/kubelet.service.d/a b.conf": SIMPLE,
            f"{ETC}/kubelet.service.d/B.conf.conf": SIMPLE,
        },
        True,
    ),
    "a name that begins with another": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/kubelet.service.d/a.conf": SIMPLE,
            f"{ETC}/kubelet.service.d/a.conf.conf": NOTIFY,
        },
        True,
    ),
    "a name hides the same name": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/kubelet.service.d/type.conf": "[Service]\nRestart=always\n",
            f"{VENDOR}/kubelet.service.d/type.conf": NOTIFY,
        },
        False,
    ),
    "a masked drop-in": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/{DROP_IN}": Link("/dev/null"),
            f"{VENDOR}/{DROP_IN}": NOTIFY,
        },
        False,
    ),
    "an empty drop-in": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{RUN}/{DROP_IN}": "",
            f"{VENDOR}/{DROP_IN}": NOTIFY,
        },
        False,
    ),
    "a linked drop-in": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/{DROP_IN}": Link("/opt/type.conf"),
            "opt/type.conf": NOTIFY,
        },
        True,
    ),
    "files that are no drop-ins": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{ETC}/kubelet.service.d/type.conf.bak": NOTIFY,
            f"{ETC}/kubelet.service.d/.type.conf": NOTIFY,
            f"{ETC}/kubelet.service.d/type.conf/type.conf": NOTIFY,
        },
        False,
    ),
    "a drop-in of all services": (
        {f"{VENDOR}/kubelet.service": SIMPLE, f"{ETC}/service.d/type.conf": NOTIFY},
        True,
    ),
    "a drop-in hides one of all services": (
        {
            f"{VENDOR}/kubelet.service": SIMPLE,
            f"{VENDOR}/{DROP_IN}": "[Service]\nRestart=always\n",
            f"{ETC}/service.d/type.conf": NOTIFY,
        },
        False,
    ),
}


@pytest.mark.parametrize(("files", "notify"), FILES.values(), ids=FILES)
def test_unit_and_drop_ins_are_found_as_systemd_finds_them(
    root: Path, files: Files, notify: bool
) -> None:
    assert is_notify(root, files) is notify


@pytest.mark.parametrize("directory", ["k3s-agent.service.d", "k3s-.service.d"])
def test_drop_in_of_the_k3s_agent_is_found(root: Path, directory: str) -> None:
    files: Files = {
        f"{VENDOR}/k3s-agent.service": "[Service]\nType=exec\n",
        f"{ETC}/{directory}/type.conf": NOTIFY,
    }
    assert generated(root, files) == {
        ORDER: f"{COMMENT}[Unit]\nBefore=k3s-agent.service\nAfter=kubelet.service\n"
    }


def test_both_units_of_type_notify_are_ordered_later(root: Path) -> None:
    files: Files = {f"{ETC}/{name}": NOTIFY for name in units.KUBELETS}
    assert generated(root, files) == {
        ORDER: f"{COMMENT}[Unit]\nBefore=kubelet.service k3s-agent.service\n"
    }


def own(after: str) -> str:
    return f"[Unit]\n{after}\n[Service]\nExecStart=/usr/bin/python3 -m isolcpus_dp serve\n"


OWN: dict[str, tuple[str, dict[str, str]]] = {
    "no order": ("After=network.target", {ORDER: KUBELET_LATER}),
    "after": ("After=network.target kubelet.service", {}),
    "before": ("Before=kubelet.service", {ORDER: f"{COMMENT}[Unit]\nAfter=k3s-agent.service\n"}),
    "before both": (
        "Before=kubelet.service\nBefore=k3s-agent.service",
        {ORDER: f"{COMMENT}[Unit]\n"},
    ),
}


@pytest.mark.parametrize(("order", "written"), OWN.values(), ids=OWN)
@pytest.mark.parametrize("name", ["isolcpus-dp.service", "isolcpus-dp.service.d/own.conf"])
def test_own_order_of_the_administrator_is_not_contradicted(
    root: Path, name: str, order: str, written: dict[str, str]
) -> None:
    files: Files = {f"{ETC}/kubelet.service": NOTIFY, f"{ETC}/{name}": own(order)}
    assert generated(root, files) == written


def test_own_order_before_a_simple_kubelet_is_not_contradicted(root: Path) -> None:
    files: Files = {
        f"{ETC}/kubelet.service": SIMPLE,
        f"{ETC}/isolcpus-dp.service.d/own.conf": own("Before=kubelet.service"),
    }
    assert generated(root, files) == {ORDER: f"{COMMENT}[Unit]\nAfter=k3s-agent.service\n"}


def test_masked_device_plugin_needs_no_order(root: Path) -> None:
    files: Files = {
        f"{ETC}/kubelet.service": NOTIFY,
        f"{ETC}/isolcpus-dp.service": Link("/dev/null"),
    }
    assert generated(root, files) == {}


def test_second_run_writes_the_same_file(root: Path) -> None:
    write(root, {f"{ETC}/kubelet.service": NOTIFY})
    for _ in range(2):
        assert generated(root, {}) == {ORDER: KUBELET_LATER}


def test_packaged_order_is_after_the_known_kubelets() -> None:
    packaged = (ROOT / "systemd" / ORDER).read_text().splitlines()
    assert packaged[-1] == f"After={' '.join(units.KUBELETS)}"
    assert f"for kubelet in {' '.join(units.KUBELETS)}; do\n" in GENERATOR.read_text()
    # A drop-in could not remove it.
    unit = (ROOT / "systemd/isolcpus-dp.service").read_text()
    assert not [line for line in unit.splitlines() if line.startswith(("After=", "Before="))]


def test_output_that_cannot_be_written_is_one_clear_line(root: Path) -> None:
    write(root, {f"{ETC}/kubelet.service": NOTIFY})
    (root.parent / "generator").mkdir()
    in_the_way = root.parent / "generator/isolcpus-dp.service.d"
    in_the_way.write_text("")
    ended = run(root)
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("isolcpus-dp-generator: mkdir: cannot create directory ")
    assert line.endswith("; isolcpus-dp.service stays ordered after the kubelet")
    assert in_the_way.read_text() == ""


def test_failed_write_leaves_no_file(root: Path) -> None:
    write(root, {f"{ETC}/kubelet.service": NOTIFY})
    directory = root.parent / "generator/isolcpus-dp.service.d"
    directory.mkdir(parents=True)
    # Every write to it fails: no space left on device.
    (directory / "kubelet-order.new").symlink_to("/dev/full")
    ended = run(root)
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"isolcpus-dp-generator: cannot write {directory}/kubelet-order.conf: ")
    assert list(directory.iterdir()) == []


def test_missing_arguments_are_an_error() -> None:
    ended = subprocess.run([GENERATOR], capture_output=True, text=True)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("isolcpus-dp-generator: requires three directories as arguments; ")
