"""Configuration files: what they set, and the error messages for wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp import config
from isolcpus_dp.config import (
    Config,
    ConfigError,
    PinningConfig,
    PoolConfig,
    check_resource_name,
    load,
)

LAST = 31

NAME_ALLOWED = (
    "a lower-case domain of at most 244 characters that is not kubernetes.io, a slash, and a name"
    " of at most 63 letters, digits, '-', '_' and '.', such as windriver.com/isolcpus"
)
CPUS_ALLOWED = "isolated, or a CPU list such as 2-3,6-7"


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """The path of the main file; the test writes it."""
    return tmp_path / "isolcpus-dp.conf"


def drop_in(main: Path, name: str, text: str) -> Path:
    directory = main.with_name(f"{main.name}.d")
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    return directory / name


def error_of(main: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(main, LAST)
    return str(caught.value)


def test_defaults_apply_without_a_file(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", main)
    [plugin] = load(None, LAST).pools
    assert plugin == PoolConfig(
        section="Plugin",
        resource_name="windriver.com/isolcpus",
        cpus=None,
        granularity="cpu",
        threads="all",
        incomplete_cores="withhold",
        placement="packed",
        mixed=False,
        device_nodes="no",
    )


def test_default_file_is_read(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", main)
    main.write_text("[Plugin]\nDeviceNodes=auto\n")
    assert load(None, LAST).pools[0].device_nodes == "auto"


def test_drop_ins_are_read_without_a_main_file(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", main)
    drop_in(main, "10-nodes.conf", "[Plugin]\nDeviceNodes=auto\n")
    assert load(None, LAST).pools[0].device_nodes == "auto"


def test_every_key_of_a_pool_is_read(main: Path) -> None:
    main.write_text(
        "[Plugin]\nResourceName=example.com/rt\nCPUs=2-3,6-7\nGranularity=core\nThreads=one\n"
        "IncompleteCores=offer\nPlacement=spread\nMixed=yes\nDeviceNodes=yes\n"
    )
    assert load(main, LAST).pools[0] == PoolConfig(
        section="Plugin",
        resource_name="example.com/rt",
        cpus=frozenset({2, 3, 6, 7}),
        granularity="core",
        threads="one",
        incomplete_cores="offer",
        placement="spread",
        mixed=True,
        device_nodes="yes",
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n; at all\n", "[Plugin]\n"])
def test_file_without_assignments_keeps_the_defaults(main: Path, text: str) -> None:
    main.write_text(text)
    assert load(main, LAST) == Config()


def test_last_drop_in_wins(main: Path) -> None:
    main.write_text("[Plugin]\nResourceName=example.com/main\nCPUs=2\nDeviceNodes=yes\n")
    drop_in(main, "20-second.conf", "[Plugin]\nResourceName=example.com/second\n")
    drop_in(main, "10-first.conf", "[Plugin]\nResourceName=example.com/first\nCPUs=3\n")
    assert load(main, LAST).pools[0] == PoolConfig(
        resource_name="example.com/second", cpus=frozenset({3}), device_nodes="yes"
    )


def test_only_files_named_conf_are_drop_ins(main: Path) -> None:
    main.write_text("[Plugin]\nDeviceNodes=yes\n")
    drop_in(main, "10-nodes.conf.dpkg-old", "[Plugin]\nDeviceNodes=auto\n")
    assert load(main, LAST).pools[0].device_nodes == "yes"


def test_hidden_file_is_not_a_drop_in(main: Path) -> None:
    main.write_text("[Plugin]\nDeviceNodes=yes\n")
    drop_in(main, "10-nodes.conf", "[Plugin]\n")
    (main.with_name(f"{main.name}.d") / ".#10-nodes.conf").symlink_to("user@host.1234")
    assert load(main, LAST).pools[0].device_nodes == "yes"


def test_file_name_is_not_a_glob_pattern(tmp_path: Path) -> None:
    main = tmp_path / "x[1].conf"
    main.write_text("[Plugin]\nDeviceNodes=yes\n")
    drop_in(tmp_path / "x1.conf", "10-nodes.conf", "[Plugin]\nDeviceNodes=auto\n")
    assert load(main, LAST).pools[0].device_nodes == "yes"
    drop_in(main, "10-nodes.conf", "[Plugin]\nDeviceNodes=no\n")
    assert load(main, LAST).pools[0].device_nodes == "no"


def test_file_that_cannot_be_checked_is_an_error(tmp_path: Path) -> None:
    main = tmp_path / ("x" * 300)
    assert error_of(main) == f"{main}: cannot be read: File name too long"


@pytest.mark.parametrize("name", ["/", ".", ""])
def test_directory_is_not_a_configuration_file(name: str) -> None:
    assert error_of(Path(name)).startswith(f"{Path(name)}: no such file; --config needs")


def test_only_a_newline_ends_a_comment(main: Path) -> None:
    main.write_text("[Plugin]\r\n# a page\fDeviceNodes=auto\u2028DeviceNodes=auto\r\nMixed=yes\r\n")
    [plugin] = load(main, LAST).pools
    assert (plugin.device_nodes, plugin.mixed) == ("no", True)


@pytest.mark.parametrize("line", ["[Plugin] CPUs=2", "[Plugin", "[Plugin]]"])
def test_text_after_a_section_header_is_an_error(main: Path, line: str) -> None:
    main.write_text(f"# first\n{line}\n")
    assert error_of(main) == f"{main}: line 2, {line!r}, is neither [Section] nor Key=value"


def test_comment_may_follow_a_section_header(main: Path) -> None:
    main.write_text("  [Plugin]  # of all\nDeviceNodes=auto\n")
    assert load(main, LAST).pools[0].device_nodes == "auto"


def test_last_assignment_in_a_file_wins(main: Path) -> None:
    main.write_text("[Plugin]\nDeviceNodes=yes\n[Plugin]\nDeviceNodes=no\nDeviceNodes=auto\n")
    assert load(main, LAST).pools[0].device_nodes == "auto"


def test_empty_assignment_restores_the_default(main: Path) -> None:
    main.write_text("[Plugin]\nResourceName=example.com/main\nCPUs=2\nDeviceNodes=yes\n")
    drop_in(main, "10-reset.conf", "[Plugin]\nResourceName=\nCPUs=\nDeviceNodes= # default\n")
    assert load(main, LAST) == Config()


def test_comment_may_follow_a_value(main: Path) -> None:
    main.write_text("# ours\n[Plugin]\nCPUs = 2-3   # not 4\n; old\nDeviceNodes=auto # none\n")
    assert load(main, LAST).pools[0] == PoolConfig(cpus=frozenset({2, 3}), device_nodes="auto")


def test_indented_line_is_a_key_as_in_systemd(main: Path) -> None:
    main.write_text("[Plugin]\nCPUs=2-3\n  DeviceNodes=auto\n")
    assert load(main, LAST).pools[0] == PoolConfig(cpus=frozenset({2, 3}), device_nodes="auto")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("isolated", None),
        ("5", {5}),
        ("2-3, 6-7", {2, 3, 6, 7}),
        ("30-N", {30, 31}),
        ("0-31:2/8", {0, 1, 8, 9, 16, 17, 24, 25}),
        ("all", set(range(32))),
    ],
)
def test_cpu_list_is_expanded_for_the_machine(main: Path, text: str, cpus: set[int] | None) -> None:
    main.write_text(f"[Plugin]\nCPUs={text}\n")
    assert load(main, LAST).pools[0].cpus == cpus


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("CPUs=2-x", "'2-x' is not a CPU number, a range (2-3), a group (0-31:2/8), N or all"),
        ("CPUs=2,32", "'32' goes beyond CPU 31, the highest possible CPU"),
        ("CPUs=5-3", "'5-3' ends before it starts"),
        (
            "CPUs=0-7:5/4",
            "'0-7:5/4' must use at least one CPU of a group and at most all of it",
        ),
    ],
)
def test_wrong_cpu_list_is_an_error(main: Path, line: str, error: str) -> None:
    main.write_text(f"[Plugin]\n{line}\n")
    assert error_of(main) == f"{main}: [Plugin] {line}: {error}; use {CPUS_ALLOWED}"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("DeviceNodes", "maybe", "auto, yes or no"),
        ("DeviceNodes", "Yes", "auto, yes or no"),
        ("DeviceNodes", "true", "auto, yes or no"),
        ("DeviceNodes", "1", "auto, yes or no"),
        ("DeviceNodes", "auto, yes", "auto, yes or no"),
        ("Granularity", "thread", "cpu or core"),
        ("Threads", "1", "all or one"),
        ("IncompleteCores", "yes", "withhold or offer"),
        ("Placement", "Packed", "packed or spread"),
        ("Mixed", "true", "yes or no"),
    ],
)
def test_unknown_value_is_an_error(main: Path, key: str, value: str, allowed: str) -> None:
    main.write_text(f"[Plugin]\n{key}={value}\n")
    assert error_of(main) == f"{main}: [Plugin] {key}={value}: unknown value; use {allowed}"


def test_one_thread_needs_cores_as_devices(main: Path) -> None:
    main.write_text("[Plugin]\nThreads=one\n")
    assert (
        error_of(main)
        == f"{main}: [Plugin] Threads=one needs Granularity=core; set it, or remove Threads=one"
    )
    drop_in(main, "10-core.conf", "[Plugin]\nGranularity=core\n")
    assert load(main, LAST).pools[0].threads == "one"


def test_incomplete_cores_need_cores_as_devices(main: Path) -> None:
    main.write_text("[Plugin]\nIncompleteCores=offer\n")
    assert error_of(main) == (
        f"{main}: [Plugin] IncompleteCores=offer needs Granularity=core; set it, or remove"
        " IncompleteCores=offer"
    )
    main.write_text("[Plugin]\nIncompleteCores=withhold\n")
    assert load(main, LAST) == Config()


# Pinning


def test_empty_pinning_section_keeps_the_defaults(main: Path) -> None:
    main.write_text("[Pinning]\n")
    assert load(main, LAST).pinning == PinningConfig(
        keep_others_off=True, memory_nodes="any", cpu_quota="unlimited"
    )


def test_every_key_of_pinning_is_read(main: Path) -> None:
    main.write_text("[Pinning]\nKeepOthersOff=no\nMemoryNodes=local\nCPUQuota=keep\n")
    assert load(main, LAST) == Config(
        pinning=PinningConfig(keep_others_off=False, memory_nodes="local", cpu_quota="keep")
    )


def test_key_of_a_pool_is_unknown_in_the_pinning_section(main: Path) -> None:
    main.write_text("[Pinning]\nMixed=yes\n")
    assert error_of(main) == (
        f"{main}: [Pinning] Mixed=yes: unknown key; use one of KeepOthersOff, MemoryNodes, CPUQuota"
    )


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("KeepOthersOff", "on", "yes or no"),
        ("MemoryNodes", "0", "any or local"),
        ("CPUQuota", "no", "unlimited or keep"),
    ],
)
def test_unknown_value_in_the_pinning_section_is_an_error(
    main: Path, key: str, value: str, allowed: str
) -> None:
    main.write_text(f"[Pinning]\n{key}={value}\n")
    assert error_of(main) == f"{main}: [Pinning] {key}={value}: unknown value; use {allowed}"


# Metrics


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:9497", ("127.0.0.1", 9497)),
        ("[::1]:9497", ("::1", 9497)),
        ("localhost:9497", ("127.0.0.1", 9497)),
        ("[fe80::1%eth0]:9497", ("fe80::1%eth0", 9497)),
        ("/run/isolcpus-dp/metrics.sock", Path("/run/isolcpus-dp/metrics.sock")),
    ],
)
def test_metrics_address_is_read(main: Path, text: str, listen: object) -> None:
    main.write_text(f"[Metrics]\nListen={text}\n")
    assert load(main, LAST).metrics == listen


@pytest.mark.parametrize(
    "text",
    [
        *("yes", ":9497", "localhost", "localhost:http", "127.0.0.1:0", "127.0.0.1:70000"),
        # Host names are not resolved, and * is not an address.
        *("*:9497", "worker.example:9497", "a..b:9497", "[*]:9497", "1.2.3:9497"),
    ],
)
def test_wrong_metrics_address_is_an_error(main: Path, text: str) -> None:
    main.write_text(f"[Metrics]\nListen={text}\n")
    assert error_of(main) == (
        f"{main}: [Metrics] Listen={text}: not an address to listen on; use an IP address and"
        " a port such as 127.0.0.1:9497, or the path of a unix socket"
    )


# Pools

POOLS = """[Plugin]
Placement=spread

[Pool dpdk]
ResourceName=example.com/isolcpus-dpdk
CPUs=4-7,20-23

[Pool rt.2]
CPUs=8-9
ResourceName=example.com/rt
Granularity=core
"""


def test_every_pool_section_is_a_resource(main: Path) -> None:
    main.write_text(POOLS)
    assert load(main, LAST).pools == (
        PoolConfig(placement="spread"),
        PoolConfig(
            section="Pool dpdk",
            resource_name="example.com/isolcpus-dpdk",
            cpus=frozenset({4, 5, 6, 7, 20, 21, 22, 23}),
        ),
        PoolConfig(
            section="Pool rt.2",
            resource_name="example.com/rt",
            cpus=frozenset({8, 9}),
            granularity="core",
        ),
    )


def test_drop_in_changes_one_key_of_a_pool(main: Path) -> None:
    main.write_text(POOLS)
    drop_in(main, "10-dpdk.conf", "[Pool dpdk]\nCPUs=4-5\n")
    assert load(main, LAST).pools[1] == PoolConfig(
        section="Pool dpdk",
        resource_name="example.com/isolcpus-dpdk",
        cpus=frozenset({4, 5}),
    )


def test_pool_needs_no_plugin_section(main: Path) -> None:
    main.write_text("[Pool a]\nResourceName=example.com/a\nCPUs=2\n")
    assert [pool.section for pool in load(main, LAST).pools] == ["Plugin", "Pool a"]


@pytest.mark.parametrize("lines", ["CPUs=2\n", "Count=2\n", ""])
def test_pool_needs_a_name(main: Path, lines: str) -> None:
    main.write_text(f"[Pool a]\n{lines}")
    assert error_of(main) == (
        f"{main}: [Pool a] needs a ResourceName= of its own; assign a resource name such as"
        " example.com/isolcpus-dpdk"
    )


@pytest.mark.parametrize("lines", ["", "CPUs=isolated\n", "CPUs=2\nCPUs=\n", "Near=a\nNear=\n"])
def test_pool_needs_cpus(main: Path, lines: str) -> None:
    main.write_text(f"[Pool a]\nResourceName=example.com/a\n{lines}")
    assert error_of(main) == (
        f"{main}: [Pool a] needs CPUs of its own; assign a list such as CPUs=4-7, or at least one"
        " of NUMANodes=, Packages=, CoreType=, Near= and Count="
    )


def test_cpu_in_two_pools_is_an_error(main: Path) -> None:
    main.write_text(POOLS)
    path = drop_in(main, "10-rt.conf", "[Pool rt.2]\nCPUs=7-9,21\n")
    assert error_of(main) == (
        f"{path}: [Pool rt.2] CPUs=7-9,21: CPU 7,21 is also in"
        f" {main}: [Pool dpdk] CPUs=4-7,20-23; assign each CPU to one pool"
    )


def test_cpu_in_a_pool_and_in_the_plugin_section_is_an_error(main: Path) -> None:
    main.write_text("[Plugin]\nCPUs=2-4\n[Pool a]\nResourceName=example.com/a\nCPUs=4-5\n")
    assert error_of(main) == (
        f"{main}: [Pool a] CPUs=4-5: CPU 4 is also in {main}: [Plugin] CPUs=2-4;"
        " assign each CPU to one pool"
    )


def test_resource_name_of_another_pool_is_an_error(main: Path) -> None:
    main.write_text(POOLS + "ResourceName=windriver.com/isolcpus\n")
    assert error_of(main) == (
        f"{main}: [Pool rt.2] ResourceName=windriver.com/isolcpus: the name, or its socket's name"
        f" windriver.com-isolcpus.sock, is used by the default of {main}: [Plugin];"
        " use a name that differs"
    )


def test_resource_name_restored_in_the_plugin_section_is_taken(main: Path) -> None:
    main.write_text("[Plugin]\nResourceName=example.com/main\nResourceName=example.com/other\n")
    drop_in(main, "10-reset.conf", "[Plugin]\nResourceName=\n")
    path = drop_in(main, "20-a.conf", "[Pool a]\nCPUs=2\nResourceName=windriver.com/isolcpus\n")
    assert error_of(main) == (
        f"{path}: [Pool a] ResourceName=windriver.com/isolcpus: the name, or its socket's name"
        f" windriver.com-isolcpus.sock, is used by the default of {main}: [Plugin];"
        " use a name that differs"
    )


def test_socket_name_of_another_pool_is_an_error(main: Path) -> None:
    main.write_text("[Pool a]\nResourceName=a/b-c\nCPUs=2\n[Pool b]\nResourceName=a-b/c\nCPUs=3\n")
    assert error_of(main) == (
        f"{main}: [Pool b] ResourceName=a-b/c: the name, or its socket's name a-b-c.sock, is used"
        f" by {main}: [Pool a] ResourceName=a/b-c; use a name that differs"
    )


def test_wrong_resource_name_is_an_error(main: Path) -> None:
    main.write_text("[Plugin]\nResourceName=isolcpus\n")
    assert error_of(main) == (
        f"{main}: [Plugin] ResourceName=isolcpus: not of the form domain/name; use {NAME_ALLOWED}"
    )


def test_reserved_resource_name_is_an_error(main: Path) -> None:
    main.write_text("[Plugin]\nResourceName=kubernetes.io/isolcpus\n")
    assert error_of(main) == (
        f"{main}: [Plugin] ResourceName=kubernetes.io/isolcpus: reserved by Kubernetes;"
        f" use {NAME_ALLOWED}"
    )


def test_error_in_a_drop_in_names_that_file(main: Path) -> None:
    main.write_text("[Plugin]\n")
    path = drop_in(main, "10-nodes.conf", "[Plugin]\nDeviceNodes=on\n")
    assert error_of(main) == (
        f"{path}: [Plugin] DeviceNodes=on: unknown value; use auto, yes or no"
    )


def test_wrong_value_is_an_error_even_if_replaced_later(main: Path) -> None:
    main.write_text("[Plugin]\nDeviceNodes=on\n")
    drop_in(main, "10-nodes.conf", "[Plugin]\nDeviceNodes=yes\n")
    assert error_of(main).startswith(f"{main}: [Plugin] DeviceNodes=on: ")


@pytest.mark.parametrize(
    "section",
    ["Plug", "plugin", "DEFAULT", "Plugin ", "Pool", "Pool ", "Pool a b", "Pool -a", "pool a"],
)
def test_unknown_section_is_an_error(main: Path, section: str) -> None:
    main.write_text(f"[{section}]\nDeviceNodes=auto\n")
    assert error_of(main) == (
        f"{main}: [{section}]: unknown section; use [Plugin], [Pinning], [Metrics], [Kubelet],"
        " or [Pool NAME] with a name of letters, digits, '-', '_' and '.'"
    )


@pytest.mark.parametrize("key", ["CPU", "cpus", "Device Nodes"])
def test_unknown_key_is_an_error(main: Path, key: str) -> None:
    main.write_text(f"[Plugin]\n{key}=2\n")
    assert error_of(main) == (
        f"{main}: [Plugin] {key}=2: unknown key; use one of ResourceName, CPUs, NUMANodes,"
        " Packages, CoreType, Near, Count, Granularity, Threads, IncompleteCores, Placement, Mixed,"
        " DeviceNodes"
    )


def test_key_before_the_first_section_is_an_error(main: Path) -> None:
    main.write_text("# ours\nDeviceNodes=auto\n[Plugin]\n")
    assert error_of(main) == (f"{main}: line 2 is before the first section; begin with [Plugin]")


def test_line_that_is_neither_section_nor_key_is_an_error(main: Path) -> None:
    main.write_text("[Plugin]\nDeviceNodes no\n")
    error = error_of(main)
    assert error.startswith(f"{main}: line 2, ")
    assert "DeviceNodes no" in error
    assert error.endswith(", is neither [Section] nor Key=value")


def test_file_that_is_not_utf8_is_an_error(main: Path) -> None:
    main.write_bytes(b"[Plugin]\n# M\xfcnchen\n")
    assert error_of(main) == f"{main}: byte 12 is not UTF-8 text; save the file as UTF-8"


def test_unreadable_drop_in_is_an_error(main: Path) -> None:
    main.write_text("[Plugin]\n")
    directory = main.with_name(f"{main.name}.d") / "10-directory.conf"
    directory.mkdir(parents=True)
    assert error_of(main) == f"{directory}: cannot be read: Is a directory"


def test_file_that_is_given_must_exist(main: Path) -> None:
    assert error_of(main) == (
        f"{main}: no such file; --config needs an existing configuration file"
    )


LONGEST_DOMAIN = ".".join(["d" * 60] * 4)  # 243 letters


@pytest.mark.parametrize(
    "name",
    [
        "windriver.com/isolcpus",
        "example/cpus",
        "a/b",
        "1.example.com/2",
        "ex-ample.com/Isol_cpus-1.rt",
        "kubernetes.io.example.com/cpus",
        "example.com/kubernetes.io",
        "requests/cpus",
        "example.requests.com/cpus",
        f"example.com/{'n' * 63}",
        f"{LONGEST_DOMAIN}d/cpus",
    ],
)
def test_resource_names_that_the_kubelet_accepts(name: str) -> None:
    check_resource_name(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("isolcpus", "not of the form domain/name"),
        ("/isolcpus", "not of the form domain/name"),
        ("example.com/", "not of the form domain/name"),
        ("example.com/a/b", "not of the form domain/name"),
        ("example.com//a", "not of the form domain/name"),
        ("Example.com/cpus", "not of the form domain/name"),
        ("example..com/cpus", "not of the form domain/name"),
        (".example.com/cpus", "not of the form domain/name"),
        ("example.com./cpus", "not of the form domain/name"),
        ("-example.com/cpus", "not of the form domain/name"),
        ("example-.com/cpus", "not of the form domain/name"),
        ("exam_ple.com/cpus", "not of the form domain/name"),
        ("b\u00fccher.com/cpus", "not of the form domain/name"),
        ("example.com/-cpus", "not of the form domain/name"),
        ("example.com/cpus_", "not of the form domain/name"),
        ("example.com/isol cpus", "not of the form domain/name"),
        ("example.com/cpus\n", "not of the form domain/name"),
        ("example.com/cpu\u00df", "not of the form domain/name"),
        ("kubernetes.io/cpus", "reserved by Kubernetes"),
        ("example.kubernetes.io/cpus", "reserved by Kubernetes"),
        ("mykubernetes.io/cpus", "reserved by Kubernetes"),
        ("requests.example.com/cpus", "reserved by Kubernetes"),
        (f"example.com/{'n' * 64}", "too long"),
        (f"{LONGEST_DOMAIN}dd/cpus", "too long"),
    ],
)
def test_resource_names_that_the_kubelet_rejects(name: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}$"):
        check_resource_name(name)
