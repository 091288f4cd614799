"""The ids of cores of which a thread becomes known only while the daemon runs."""

from __future__ import annotations

from isolcpus_dp.host import machine

from .conftest import MakeUp
from .test_pool_cores import ALL, CORES, OFFER, OFFER_ONE, ONE_THREAD, given, make, reasons


def test_core_keeps_its_number_when_a_lower_thread_comes_online(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    made_up.set_offline(1, 2, 3, 4)  # no core is complete, so that nothing can be inferred
    started = machine.read(made_up.root)
    assert [given(started, config) for config in ALL] == [{"6": {6}}] * 4
    made_up.set_online(1, 2, 3, 4)
    host = machine.read(made_up.root, machine.read(made_up.root, started))
    assert given(host, CORES) == given(host, OFFER) == {"6": {2, 6}}
    assert given(host, ONE_THREAD) == given(host, OFFER_ONE) == {"6": {6}}
    assert make(host, CORES).warnings == (
        "core 2,6 has the device id 6 until the daemon is restarted, because CPU 2 became known"
        " later; delete the pod that has device 6 before the restart",
    )
    made_up.set_offline(2)
    host = machine.read(made_up.root, host)
    assert reasons(host, CORES) == {"6": "CPU 2 is offline"}
    assert given(host, OFFER) == {"6": {6}}


def test_core_keeps_its_number_when_a_lower_thread_is_inferred(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 3, 6, 7})
    made_up.set_offline(0, 1, 2, 3)
    started = machine.read(made_up.root)
    made_up.set_online(1)  # the first core that is complete
    inferred = machine.read(made_up.root, started)
    assert given(inferred, OFFER) == {"6": {6}, "7": {7}}
    assert [*reasons(inferred, CORES)] == ["6", "7"]
    made_up.set_online(2)
    assert given(machine.read(made_up.root, inferred), OFFER) == {"6": {2, 6}, "7": {7}}


def test_inferred_lower_thread_names_its_core_when_it_comes_online(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    made_up.set_offline(2)
    started = machine.read(made_up.root)
    made_up.set_online(2)
    assert given(machine.read(made_up.root, started), CORES) == {"2": {2, 6}}


def test_threads_that_were_separate_devices_are_unhealthy_together(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    made_up.set_offline(1, 2, 3, 4)
    host = machine.read(made_up.root)
    made_up.set_offline(6)
    made_up.set_online(2)  # its sibling is offline, so that it seems to be a core
    host = machine.read(made_up.root, host)
    assert given(host, CORES) == {"2": {2}}
    made_up.set_online(6)
    host = machine.read(made_up.root, host)
    for config in ALL:
        assert reasons(host, config) == {
            "2": "CPU 2,6 were separate devices until they were online together: delete the pods"
            " that have them, then restart the daemon"
        }
    assert given(machine.read(made_up.root), CORES) == {"2": {2, 6}}
