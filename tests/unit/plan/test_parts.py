"""The parts of a plan where hosts differ: kernel, systemd, runtime and plugin."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.plan import kernel, parts, plugin, runtime, systemd, wish
from isolcpus_dp.plan.part import Goal
from isolcpus_dp.plan.runtime import Runtime
from isolcpus_dp.simulator.machine import described, parse_shape

from .cases import DEBIAN, EL, case_of


@pytest.fixture
def goal() -> Goal:
    machine = described(parse_shape("1x4x2"))
    return wish.apply(machine, wish.Wish(isolate="2-3,6-7"))[0]


ARGUMENTS = (
    "isolcpus=nohz,domain,managed_irq,2-3,6-7",
    "nohz_full=2-3,6-7",
    "rcu_nocbs=2-3,6-7",
    "irqaffinity=0-1,4-5",
    "transparent_hugepage=madvise",
)


def test_other_distributions_get_the_words_to_add(goal: Goal) -> None:
    other = kernel.part(goal, replace(DEBIAN, distribution="other"), "quiet isolcpus=1")
    assert (other.files, other.commands) == ((), ())
    assert other.notes == (
        "The kernel command line has isolcpus=1 now: remove it, because of two isolcpus= the kernel"
        " may ignore one.",
        "Add to the kernel command line in the boot loader's configuration: " + " ".join(ARGUMENTS),
    )


def test_arguments_that_are_replaced_are_named(goal: Goal) -> None:
    found = kernel.part(goal, EL, 'ro isolcpus=3,7 nohz_full=2-3,6-7 "rcu_nocbs=3" -- nohz_full=1')
    assert found.notes[0] == (
        "The kernel command line has isolcpus=3,7 rcu_nocbs=3 now: it is replaced."
    )


def test_huge_pages_that_are_never_used_stay_so(goal: Goal) -> None:
    assert kernel.arguments(goal) == ARGUMENTS
    assert kernel.arguments(goal, "transparent_hugepage=always") == ARGUMENTS
    found = kernel.arguments(goal, "transparent_hugepage=always transparent_hugepage=never")
    assert found == (*ARGUMENTS[:-1], "transparent_hugepage=never")


def test_long_lists_that_no_group_shortens_are_reported() -> None:
    machine = described(parse_shape("1x512x1"))
    cpus = (
        ",".join(str(cpu * cpu + 1) for cpu in range(4, 22))
        + ","
        + ",".join(str(cpu) for cpu in range(460, 500) if cpu % 7 in (0, 3))
        + ","
        + ",".join(str(cpu) for cpu in range(20, 440) if cpu * cpu % 11 in (3, 5))
    )
    listed, _ = wish.apply(machine, wish.Wish(isolate=cpus))
    note = kernel.part(listed, EL).notes[0]
    assert note.endswith("has room for 1024 bytes in all, and the kernel of x86 for 2048.")


def test_kernel_that_may_not_know_the_flag_is_reported(goal: Goal) -> None:
    notes = kernel.part(goal, replace(EL, kernel=(4, 18))).notes
    assert notes[0].startswith("Linux 4.18 may not know the flag managed_irq")


def test_services_have_no_files_with_cgroup_v1(goal: Goal) -> None:
    found = systemd.part(goal, replace(DEBIAN, cgroup_v2=False))
    assert found.files == ()
    assert "cgroup v1" in found.notes[0]


def test_drop_ins_cover_systemd_itself_and_all_slices(goal: Goal) -> None:
    found = {str(file.path): file.text.splitlines()[1:] for file in systemd.part(goal, EL).files}
    directory = "/etc/systemd/system"
    slices = ("system.slice", "user.slice", "machine.slice")
    assert found == {
        f"{directory}/init.scope.d/90-isolcpus-dp.conf": ["[Scope]", "AllowedCPUs=0-1,4-5"],
        **{
            f"{directory}/{name}.d/90-isolcpus-dp.conf": ["[Slice]", "AllowedCPUs=0-1,4-5"]
            for name in slices
        },
    }


@pytest.mark.parametrize(
    ("known", "file", "commands", "note"),
    [
        (None, None, (), "The container runtime and its version are not known here."),
        (Runtime("containerd", (2, 1)), None, (), "containerd 2.1 has NRI enabled by default."),
        (Runtime("containerd", (1, 6)), None, (), "containerd 1.6 has no NRI: install 1.7"),
        (
            Runtime("containerd", (1, 7), "version = 2\n"),
            "/etc/containerd/conf.d/90-isolcpus-dp.toml",
            (
                "sed -i '1i imports = [\"/etc/containerd/conf.d/*.toml\"]'"
                " /etc/containerd/config.toml",
            ),
            "",
        ),
        (
            Runtime("containerd", (1, 7)),
            "/etc/containerd/conf.d/90-isolcpus-dp.toml",
            (
                "printf 'version = 2\\nimports = [\"/etc/containerd/conf.d/*.toml\"]\\n'"
                " > /etc/containerd/config.toml",
            ),
            "",
        ),
        (
            Runtime("containerd", (1, 7), 'imports = ["/etc/containerd/conf.d/*.toml"]\n'),
            "/etc/containerd/conf.d/90-isolcpus-dp.toml",
            (),
            "",
        ),
        (
            Runtime("containerd", (1, 7), 'imports = ["/etc/other/*.toml"]\n'),
            "/etc/containerd/conf.d/90-isolcpus-dp.toml",
            (),
            'Add "/etc/containerd/conf.d/*.toml" to imports in /etc/containerd/config.toml',
        ),
        (Runtime("crio", (1, 30)), "/etc/crio/crio.conf.d/90-isolcpus-dp.conf", (), ""),
        (Runtime("crio", (1, 24)), None, (), "CRI-O before 1.26 has no NRI"),
    ],
)
def test_nri_is_switched_on_where_it_is_off(
    goal: Goal, known: Runtime | None, file: str | None, commands: tuple[str, ...], note: str
) -> None:
    found = runtime.part(goal, DEBIAN, known)
    assert [str(one.path) for one in found.files] == ([file] if file else [])
    assert found.commands == commands
    assert [one[: len(note)] for one in found.notes] == ([note] if note else [])


def test_pools_that_lose_cpus_are_reported(goal: Goal) -> None:
    config = Config(pools=(PoolConfig(), PoolConfig("Pool a", "example.com/a", frozenset({1, 2}))))
    found = plugin.part(goal, DEBIAN, config)
    assert found.files == ()
    assert found.notes == (
        "CPU 1 of CPUs= is not isolated and is not offered: isolated CPUs are 2-3,6-7.",
    )
    assert found.summary.endswith("windriver.com/isolcpus: 3 devices; example.com/a: 1 devices.")


def test_every_file_is_at_a_path_that_a_later_plan_knows() -> None:
    case = case_of("2x16x2")
    goal = wish.apply(case.machine, case.wish)[0]
    targets = [
        replace(target, tuned=tuned, cgroup_v2=cgroup_v2)
        for target in (DEBIAN, EL, replace(EL, distribution="other"))
        for tuned in (False, True)
        for cgroup_v2 in (False, True)
    ]
    runtimes = [
        None,
        *(Runtime("containerd", version) for version in (None, (1, 6), (1, 7), (2, 0))),
        *(Runtime("crio", version) for version in (None, (1, 25), (1, 30))),
    ]
    written = set[PurePosixPath]()
    for target, one in itertools.product(targets, runtimes):
        known = replace(case.known, target=target, runtime=one, is_here=True)
        plan = parts.make(goal, known, Config())
        present = {file.path for file in plan.files}
        written |= present
        assert present.isdisjoint(plan.former)
        unknown = set() if one else set(runtime.PATHS)
        assert present | set(plan.former) | unknown == set(parts.PATHS)
        assert unknown.isdisjoint(plan.former)
    assert written == set(parts.PATHS)
    assert len(parts.PATHS) == len(written) == 13


def test_files_for_programs_that_a_plan_does_not_know_of_may_stay() -> None:
    """A plan for another machine does not know which programs the directory of --write has."""
    case = case_of("1x4x1")
    plan = parts.make(wish.apply(case.machine, case.wish)[0], case.known, Config())
    assert plan.former == []
    known = replace(case.known, runtime=Runtime("crio", (1, 30)), is_here=True)
    plan = parts.make(plan.goal, known, Config())
    assert list(map(str, plan.former)) == [
        "/etc/containerd/conf.d/90-isolcpus-dp.toml",
        "/etc/tuned/isolcpus-dp/tuned.conf",
        "/etc/tuned/profiles/isolcpus-dp/tuned.conf",
    ]


def test_kubelet_is_stopped_after_the_drain() -> None:
    case = case_of("1x4x1")
    plan = parts.make(wish.apply(case.machine, case.wish)[0], case.known, Config())
    assert plan.commands == [
        "update-grub",
        "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
        "systemctl stop kubelet",
        "rm -f /var/lib/kubelet/cpu_manager_state",
        "systemctl reboot",
        "kubectl uncordon NODE",
        "isolcpus-dp check",
    ]


def test_differences_of_the_command_line_are_named() -> None:
    assert kernel.lacking(ARGUMENTS, " ".join(("quiet", *ARGUMENTS))) == []
    changed = " ".join(("isolcpus=1", *ARGUMENTS[:2], ARGUMENTS[3], "transparent_hugepage=never"))
    assert kernel.lacking(ARGUMENTS, changed) == [
        "the kernel command line has isolcpus=1 isolcpus=nohz,domain,managed_irq,2-3,6-7, and not"
        " only isolcpus=nohz,domain,managed_irq,2-3,6-7",
        "the kernel command line lacks rcu_nocbs=2-3,6-7",
        "the kernel command line has transparent_hugepage=never, and not only"
        " transparent_hugepage=madvise",
    ]
