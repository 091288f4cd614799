"""Plans for twelve machines: what holds for all, and the files of four of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from isolcpus_dp.config import Config
from isolcpus_dp.host import cpulist
from isolcpus_dp.plan import parts, wish
from isolcpus_dp.plan.parts import Plan
from isolcpus_dp.report.check.start import change, table
from tests.unit import machines

from .cases import Case, case_of

EXPECTED = Path(__file__).parent / "expected"

every_machine = pytest.mark.parametrize("name", machines.MACHINES)


def plan_of(case: Case) -> Plan:
    goal, notes = wish.apply(case.machine, case.wish)
    return parts.make(goal, case.known, Config(), notes)


def text(plan: Plan, part: str) -> str:
    [file] = [file for one in plan.parts if one.name == part for file in one.files]
    return file.text


@pytest.mark.parametrize(
    ("name", "isolated", "housekeeping"),
    [
        ("1x4x1", "1-3", "0"),
        ("2x16x2", "1-15,17-31,33-47,49-63", "0,16,32,48"),
        (
            "2x64x2 with 8 nodes",
            "1-15,17-31,33-47,49-63,65-79,81-95,97-111,113-127,129-143,145-159,161-175,177-191,"
            "193-207,209-223,225-239,241-255",
            "0,16,32,48,64,80,96,112,128,144,160,176,192,208,224,240",
        ),
        ("hybrid 8P+16E", "2-15", "0-1,16-31"),
        ("big.LITTLE", "4-7", "0-3"),
        ("SMT off at boot", "1-7,9-15", "0,8,16-31"),
        ("offline CPUs", "1-7,9,11-15,17-23,25,27-31", "0,8,10,16,24,26"),
        ("no NUMA", "1-7,9-15", "0,8"),
        ("memory-only nodes", "1-7,9-15,17-23,25-31", "0,8,16,24"),
        ("a node without CPUs", "1-7,9-15,17-23,25-31", "0,8,16,24"),
        (
            "16 nodes",
            ",".join(f"{low}-{low + 6}" for low in range(1, 256, 8)),
            ",".join(map(str, range(0, 256, 8))),
        ),
        (
            "2048 CPUs",
            ",".join(f"{low}-{low + 62}" for low in range(1, 2048, 64)),
            ",".join(map(str, range(0, 2048, 64))),
        ),
    ],
)
def test_usual_wish_isolates_all_but_a_core_per_node(
    name: str, isolated: str, housekeeping: str
) -> None:
    goal = plan_of(case_of(name)).goal
    assert cpulist.render(goal.isolated) == isolated
    assert cpulist.render(goal.housekeeping) == housekeeping


@every_machine
@pytest.mark.parametrize("count", [1, 2])
def test_every_cpu_is_on_one_side_and_cores_are_whole(name: str, count: int) -> None:
    case = case_of(name)
    goal = plan_of(replace(case, wish=replace(case.wish, housekeeping=count))).goal
    assert goal.isolated | goal.housekeeping == case.machine.present
    assert not goal.isolated & goal.housekeeping
    assert goal.isolated
    assert 0 in goal.housekeeping
    staying: dict[int | None, set[frozenset[int]]] = {}
    for cpu in case.machine.cpus.values():
        assert cpu.siblings <= goal.isolated or cpu.siblings <= goal.housekeeping
        if cpu.online and cpu.cpu in goal.housekeeping:
            staying.setdefault(cpu.node, set()).add(cpu.siblings)
    nodes = {cpu.node for cpu in case.machine.cpus.values()}
    assert staying.keys() == nodes
    assert all(len(cores) >= count for cores in staying.values())


@every_machine
def test_all_lists_name_the_cpus_of_the_goal(name: str) -> None:
    case = case_of(name)
    plan = plan_of(case)
    expected = {
        "isolcpus": plan.goal.isolated,
        "nohz_full": plan.goal.isolated,
        "rcu_nocbs": plan.goal.isolated,
        "irqaffinity": plan.goal.housekeeping,
    }
    words = dict(word.split("=", 1) for word in plan.arguments)
    assert words.pop("transparent_hugepage") == "madvise"
    flags, lists = "nohz,domain,managed_irq,", {}
    for argument, value in words.items():
        lists[argument] = cpulist.parse_argument(value.replace(flags, ""), case.machine.last)
    assert lists == expected
    assert words["isolcpus"].startswith(flags)
    assert sum(len(word) + 1 for word in plan.arguments) < 500
    # No character has a meaning for the shell, for sed or for GRUB.
    assert re.fullmatch("[-a-z0-9_=,:/ ]+", " ".join(plan.arguments))
    [systemd] = [part for part in plan.parts if part.name == "systemd"]
    assert len(systemd.files) == 4
    for file in systemd.files:
        allowed = re.findall(r"^AllowedCPUs=(.*)$", file.text, re.MULTILINE)
        assert [cpulist.parse(one) for one in allowed] == [plan.goal.housekeeping]


@every_machine
def test_kubelet_starts_with_the_planned_settings(name: str) -> None:
    case = case_of(name)
    plan = plan_of(case)
    document: dict[str, Any] = yaml.safe_load(text(plan, "kubelet"))
    assert document.pop("apiVersion") == "kubelet.config.k8s.io/v1beta1"
    assert document.pop("kind") == "KubeletConfiguration"
    after = change.follow(
        replace(
            case.known.kubelet.facts,
            machine=replace(case.machine, isolated=plan.goal.isolated),
        ),
        change.Change(document),
    )
    assert [refusal.evidence for refusal in table.refusals(after)] == []
    assert plan.goal.isolated & case.machine.online <= after.reserved < case.machine.online
    assert (after.cpu_policy, after.strict) == ("static", True)


@every_machine
def test_every_file_says_who_wrote_it(name: str) -> None:
    plan = plan_of(case_of(name))
    assert len({file.path for file in plan.files}) == len(plan.files) > 0
    assert {file.path for file in plan.files} <= set(parts.PATHS)
    for file in plan.files:
        assert file.path.is_absolute()
        assert file.text.startswith("# Written by isolcpus-dp plan")
        assert file.text.endswith("\n")


@pytest.mark.parametrize("name", ["1x4x1", "2x16x2", "hybrid 8P+16E", "16 nodes"])
def test_files_are_those_in_the_directory_of_the_machine(name: str) -> None:
    plan = plan_of(case_of(name))
    directory = EXPECTED / name.replace(" ", "-")
    expected = {
        f"/{path.relative_to(directory)}": path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }
    # Those of host tuning have tests of their own.
    written = {
        str(file.path): file.text
        for part in plan.parts
        if part.name != "tuning"
        for file in part.files
    }
    assert written == expected


def test_grubby_changes_the_entries_on_el() -> None:
    plan = plan_of(case_of("2048 CPUs"))
    [kernel] = [part for part in plan.parts if part.name == "kernel"]
    assert kernel.files == ()
    assert kernel.commands == (
        'grubby --update-kernel=ALL --remove-args="isolcpus nohz_full rcu_nocbs irqaffinity'
        ' transparent_hugepage" --args="isolcpus=nohz,domain,managed_irq,1-2047:63/64'
        " nohz_full=1-2047:63/64 rcu_nocbs=1-2047:63/64 irqaffinity=0-1984:1/64"
        ' transparent_hugepage=madvise"',
    )


@pytest.mark.parametrize(
    ("own", "default", "result"),
    [
        ("", "quiet", "|quiet"),
        ("console=ttyS0 isolcpus=1", "quiet", "console=ttyS0|quiet"),
        ("", "isolcpus=1 nohz_full=1 quiet rcu_nocbs irqaffinity=0", "|quiet"),
        ("rcu_nocb_poll", "transparent_hugepage=never isolcpus=1 a=*", "rcu_nocb_poll|a=*"),
    ],
)
def test_grub_file_replaces_earlier_arguments(
    own: str, default: str, result: str, tmp_path: Path
) -> None:
    file = tmp_path / "90.cfg"
    file.write_text(text(plan_of(case_of("1x4x1")), "kernel"))
    script = (
        f"set -e; GRUB_CMDLINE_LINUX='{own}'; GRUB_CMDLINE_LINUX_DEFAULT='{default}'; . {file};"
        ' printf "%s|%s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    )
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    ours = (
        "isolcpus=nohz,domain,managed_irq,1-3 nohz_full=1-3 rcu_nocbs=1-3 irqaffinity=0"
        " transparent_hugepage=madvise"
    )
    before, _, after = printed.stdout.partition("|")
    assert f"{before.strip()}|{' '.join(after.split())}" == f"{result} {ours}"


def test_nodes_without_cpus_count_for_the_kubelet() -> None:
    plan = plan_of(case_of("memory-only nodes"))
    document = yaml.safe_load(text(plan, "kubelet"))
    assert document["topologyManagerPolicyOptions"] == {"max-allowable-numa-nodes": "10"}
    assert machines.nodes("memory-only nodes") == frozenset(range(10))
