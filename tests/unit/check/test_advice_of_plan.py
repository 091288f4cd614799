"""What `check` advises is what `plan` writes."""

from __future__ import annotations

from isolcpus_dp.plan import kernel, systemd
from isolcpus_dp.plan.part import Goal, Target
from isolcpus_dp.report.check import interrupts, processes
from isolcpus_dp.report.check import kernel as kernel_checks

from .conftest import MadeUpHost


def goal(made_up: MadeUpHost) -> Goal:
    machine = made_up.host().machine
    return Goal(machine, machine.isolated, machine.present - machine.isolated)


def test_kernel_arguments_are_those_of_the_plan(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", "quiet")
    made_up.sys("devices/system/cpu/nohz_full", "")
    made_up.irq(1, "", "0")
    made_up.proc("irq/default_smp_affinity", "ff")
    made_up.proc("interrupts", "CPU0")
    host = made_up.host()
    checks = (
        kernel_checks.arguments,
        kernel_checks.nohz_full,
        kernel_checks.rcu_nocbs,
        interrupts.affinity,
    )
    # The last one, about huge pages, does not depend on the CPUs.
    for check, word in zip(checks, kernel.arguments(goal(made_up))):
        assert f"Boot with {word}" in check(host).advice


def test_cpus_of_services_are_those_of_the_plan(made_up: MadeUpHost) -> None:
    made_up.process(40, "busy", "0-7")
    files = systemd.part(goal(made_up), Target("debian", (6, 1), tuned=False)).files
    setting = files[0].text.splitlines()[-1]
    assert setting == "AllowedCPUs=0-1,4-5"
    assert f"set {setting} for its slice" in processes.foreign(made_up.host()).advice
