"""Whether the kernel isolates the CPUs that its command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.report.check import files, kernel
from isolcpus_dp.report.check.finding import Verdict
from tests.unit.conftest import MakeUp

from .conftest import MadeUpHost


def test_isolcpus_confirmed_by_sysfs_is_ok(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "quiet isolcpus=nohz,domain,managed_irq,2-3,6-7 -- isolcpus=1")
    found = kernel.arguments(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "isolcpus=nohz,domain,managed_irq,2-3,6-7",
    )


def test_isolcpus_may_name_cpus_that_the_host_does_not_have(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=managed_irq,domain,2-3,6-63")
    assert kernel.arguments(made_up.host()).verdict is Verdict.OK


def test_isolcpus_without_managed_irq_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=2-3,6-N")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert "lacks the flag managed_irq" in found.evidence
    assert found.advice == "Boot with isolcpus=nohz,domain,managed_irq,2-3,6-N"


def test_isolation_without_isolcpus_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "quiet")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert "isolcpus= is not on the kernel command line" in found.evidence


@pytest.mark.parametrize(
    "value", ['"managed_irq,domain,2-3,6-7"', "tickless,managed_irq,domain,2-3,6-7"]
)
def test_isolcpus_is_parsed_as_by_the_kernel(made_up: MadeUpHost, value: str) -> None:
    made_up.proc("cmdline", f"isolcpus={value}")
    assert kernel.arguments(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(
    "value", ["managed_irq,2-3,6-7,", "managed_irq,,2-3,,6-7", "managed_irq,2-N:2/4"]
)
def test_isolcpus_may_have_any_form_that_the_kernel_accepts(
    made_up: MadeUpHost, value: str
) -> None:
    made_up.proc("cmdline", f"isolcpus={value}")
    found = kernel.arguments(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, f"isolcpus={value}")


def test_flags_of_several_isolcpus_accumulate(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=2-3,6-7 quiet isolcpus= isolcpus=managed_irq,2,3,6-N")
    found = kernel.arguments(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "isolcpus=2-3,6-7 isolcpus=managed_irq,2,3,6-N",
    )


def test_several_isolcpus_without_managed_irq_are_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=domain,2-3,6-7, isolcpus=nohz,2-3,6-7")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence.startswith(
        "isolcpus=domain,2-3,6-7, isolcpus=nohz,2-3,6-7 lacks the flag managed_irq: "
    )


def test_second_isolcpus_with_other_cpus_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=2-3,6-7 isolcpus=managed_irq,2-3")
    found = kernel.arguments(made_up.host())
    assert (found.verdict, found.evidence, found.advice) == (
        Verdict.WARNING,
        "isolcpus=managed_irq,2-3 names other CPUs than isolcpus=2-3,6-7 before it: the kernel may"
        " ignore it",
        "Boot with a single isolcpus=nohz,domain,managed_irq,2-3,6-7",
    )


def test_second_isolcpus_cannot_add_cpus(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=managed_irq,domain,2-3 isolcpus=managed_irq,domain,6-7")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert "but sysfs reports CPU 2-3,6-7 as isolated" in found.evidence


def test_invalid_second_isolcpus_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=managed_irq,2-3,6-7 isolcpus=nohz,x1")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence.startswith("isolcpus=nohz,x1: 'x1' is not a CPU number")


def test_boot_cpu_stays_when_isolcpus_names_all(make_up: MakeUp, tmp_path: Path) -> None:
    made_up = MadeUpHost(make_up("1x4x1", {1, 2, 3}), tmp_path)
    made_up.proc("cmdline", "isolcpus=managed_irq,domain,0-N")
    assert kernel.arguments(made_up.host()).verdict is Verdict.OK


def test_misspelled_flag_counts_as_missing(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "isolcpus=managd_irq,2-3,6-7")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert "lacks the flag managed_irq" in found.evidence


@pytest.mark.parametrize(
    ("value", "evidence"),
    [
        ("domain,managed_irq,1-3,6-7", "but sysfs reports CPU 2-3,6-7 as isolated"),
        ("managed_irq,2-3,6..7", "'6..7' is not a CPU number"),
    ],
)
def test_isolcpus_without_effect_is_a_problem(
    made_up: MadeUpHost, value: str, evidence: str
) -> None:
    made_up.proc("cmdline", f"isolcpus={value}")
    found = kernel.arguments(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert evidence in found.evidence


def test_host_without_isolated_cpus_is_a_problem(make_up: MakeUp, tmp_path: Path) -> None:
    found = kernel.arguments(MadeUpHost(make_up("1x2x1", set()), tmp_path).host())
    assert found.verdict is Verdict.PROBLEM
    assert "no CPU is isolated" in found.evidence


def test_nohz_full_of_all_isolated_cpus_is_ok(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "nohz_full=2-3,6-7")
    made_up.sys("devices/system/cpu/nohz_full", "2-3,6-7")
    found = kernel.nohz_full(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, "nohz_full applies to CPU 2-3,6-7")


def test_timer_tick_on_an_isolated_cpu_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.sys("devices/system/cpu/nohz_full", "  (null)")
    found = kernel.nohz_full(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "the timer tick interrupts processes on CPU 2-3,6-7"


@pytest.mark.parametrize("value", ["all", "0-N", "0-7,"])
def test_boot_cpu_may_tick_when_nohz_full_names_it(made_up: MadeUpHost, value: str) -> None:
    made_up.proc("cmdline", f"nohz_full={value}")
    made_up.sys("devices/system/cpu/nohz_full", "1-7")
    found = kernel.nohz_full(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, "nohz_full applies to CPU 1-7")


def test_isolated_boot_cpu_that_ticks_is_a_warning(make_up: MakeUp, tmp_path: Path) -> None:
    made_up = MadeUpHost(make_up("1x4x1", {0, 1}), tmp_path)
    made_up.proc("cmdline", "nohz_full=0-1")
    made_up.sys("devices/system/cpu/nohz_full", "1")
    found = kernel.nohz_full(made_up.host())
    assert (found.verdict, found.evidence, found.advice) == (
        Verdict.WARNING,
        "the timer tick interrupts processes on CPU 0: the kernel never stops it on the boot CPU",
        "Boot with isolcpus=nohz,domain,managed_irq,1",
    )


@pytest.mark.parametrize(
    ("value", "evidence"),
    [("2-3,6-7", "but the timer tick runs on CPU 2-3,6-7"), ("x", "'x' is not a CPU number")],
)
def test_nohz_full_without_effect_is_a_problem(
    made_up: MadeUpHost, value: str, evidence: str
) -> None:
    made_up.proc("cmdline", f"nohz_full={value}")
    found = kernel.nohz_full(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert evidence in found.evidence


def test_callbacks_offloaded_from_all_isolated_cpus_are_ok(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "rcu_nocbs=2-3")
    made_up.sys("devices/system/cpu/nohz_full", "6-7")
    for cpu in (2, 3, 6, 7):
        made_up.kernel_thread(20 + cpu, f"rcuop/{cpu}", "0-1,4-5")
    found = kernel.rcu_nocbs(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "RCU callbacks are offloaded from CPU 2-3,6-7",
    )


def test_isolated_cpu_that_runs_callbacks_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "rcu_nocbs=2-3")
    found = kernel.rcu_nocbs(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "RCU callbacks run on isolated CPU 6-7"


def test_callbacks_without_an_rcuo_thread_are_a_problem(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "rcu_nocbs=all")
    for cpu in (2, 3, 6):
        made_up.kernel_thread(20 + cpu, f"rcuos/{cpu}", "0-1,4-5")
    found = kernel.rcu_nocbs(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "RCU callbacks of CPU 7 are not offloaded: it has no rcuo thread"


def test_invalid_rcu_nocbs_list_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "rcu_nocbs=7-6")
    assert kernel.rcu_nocbs(made_up.host()).verdict is Verdict.PROBLEM


def test_callbacks_are_unknown_when_proc_hides_processes(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "rcu_nocbs=2-3,6-7")
    made_up.hide_processes()
    with pytest.raises(files.Unseen, match="hides processes"):
        kernel.rcu_nocbs(made_up.host())


def test_whole_isolated_cores_are_ok(made_up: MadeUpHost) -> None:
    made_up.owns("default/a/main", 2, 6)
    made_up.owns("default/b/main", 3, 7)
    assert kernel.smt_siblings(made_up.host()).verdict is Verdict.OK


def test_core_with_two_owners_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.owns("default/a/main", 2)
    made_up.owns("default/b/main", 6)
    found = kernel.smt_siblings(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "core 2,6 has more than one owner: default/a/main; default/b/main"


def test_sibling_left_out_of_isolcpus_is_a_problem(make_up: MakeUp, tmp_path: Path) -> None:
    made_up = MadeUpHost(make_up("1x4x2", {2, 3, 7}), tmp_path)
    found = kernel.smt_siblings(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "core 2,6 is only partly isolated"
    assert found.advice == "Add CPU 6 to isolcpus= and reboot, or take it offline."


@pytest.mark.parametrize(
    ("isolated", "advice"),
    [
        # A common mistake on a machine whose siblings do not have adjacent numbers.
        ({2, 3, 4, 5, 6, 7}, "Remove CPU 4-5 from isolcpus= and reboot."),
        # CPU 0 cannot be isolated as well.
        ({1, 2, 3, 4, 5, 6, 7}, "Remove CPU 4 from isolcpus= and reboot."),
    ],
)
def test_advice_for_a_split_core_leaves_housekeeping_cpus(
    make_up: MakeUp, tmp_path: Path, isolated: set[int], advice: str
) -> None:
    found = kernel.smt_siblings(MadeUpHost(make_up("1x4x2", isolated), tmp_path).host())
    assert (found.verdict, found.advice) == (Verdict.PROBLEM, advice)


def test_offline_sibling_is_ok(make_up: MakeUp, tmp_path: Path) -> None:
    tree = make_up("1x4x2", {2, 3, 7})
    tree.set_offline(6)
    assert kernel.smt_siblings(MadeUpHost(tree, tmp_path).host()).verdict is Verdict.OK
