"""When the machine is read again after CPUs went offline or came online."""

from __future__ import annotations

import asyncio

from isolcpus_dp.host import siblings
from isolcpus_dp.host.hotplug import MachineWatch
from isolcpus_dp.host.machine import Machine, MachineError, read

from .conftest import MakeUp


async def test_smt_that_is_switched_off_after_the_last_event_is_noticed(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    control = made_up.directory / "smt/control"
    control.parent.mkdir()
    control.write_text("on\n")
    seen: list[Machine] = []
    settled = asyncio.Event()

    def changed(machine: Machine) -> None:
        seen.append(machine)
        # No event tells this.
        control.write_text("off\n")
        if machine.smt_off:
            settled.set()

    def failed(error: MachineError) -> None:
        raise AssertionError(error)

    with MachineWatch(made_up.root, read(made_up.root), changed, failed):
        made_up.set_offline(2, 3)
        await asyncio.wait_for(settled.wait(), 20)
    assert [machine.online for machine in seen] == [{0, 1}, {0, 1}]
    assert [siblings.switched_off(machine) for machine in seen] == [set(), {2, 3}]


async def test_change_that_could_not_be_applied_is_tried_again(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {2, 3})
    first = read(made_up.root)
    seen: list[Machine] = []
    errors: list[str] = []
    failed, applied = asyncio.Event(), asyncio.Event()

    def changed(machine: Machine) -> None:
        seen.append(machine)
        failed.set()
        if len(seen) < 3:
            raise MachineError("cannot read has_memory")
        applied.set()

    with MachineWatch(made_up.root, first, changed, lambda error: errors.append(str(error))) as one:
        made_up.set_offline(3)
        await asyncio.wait_for(failed.wait(), 20)
        assert one.machine is first
        await asyncio.wait_for(applied.wait(), 20)
        assert one.machine.online == {0, 1, 2}
    assert errors == ["cannot read has_memory"]
