"""The trace instance: what is set up in it, what is removed, and why it may fail."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.record import tracefs
from isolcpus_dp.measure.record.threads import SWITCHES
from isolcpus_dp.measure.record.tracefs import Instance

from .conftest import MadeUpKernel

ONLINE = frozenset(range(8))


def made(kernel: MadeUpKernel) -> Instance:
    instance = Instance(kernel.roots.tracefs)
    instance.make()
    return instance


def test_instance_has_small_buffers(kernel: MadeUpKernel) -> None:
    made(kernel)
    assert (kernel.instance / "buffer_size_kb").read_text() == "4"


def test_other_cpus_are_not_counted(kernel: MadeUpKernel) -> None:
    made(kernel).add(SWITCHES, frozenset({2, 3, 7}), ONLINE)
    assert kernel.trigger("sched/sched_switch") == (
        "hist:keys=next_comm,common_cpu,next_pid:size=8192"
        " if (CPU >= 2 && CPU <= 3) || (CPU == 7)\n"
    )


def test_condition_is_left_out_for_all_cpus(kernel: MadeUpKernel) -> None:
    made(kernel).add(SWITCHES, ONLINE, ONLINE)
    assert " if " not in kernel.trigger("sched/sched_switch")


def test_condition_that_exceeds_a_write_is_left_out(kernel: MadeUpKernel) -> None:
    made(kernel).add(SWITCHES, frozenset(range(0, 1024, 2)), frozenset(range(1024)))
    assert " if " not in kernel.trigger("sched/sched_switch")


def test_key_cpu_is_tried_if_common_cpu_is_rejected(
    kernel: MadeUpKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = made(kernel)
    accepted = []

    def append(path: Path, text: str) -> None:
        if "common_cpu" in text:
            raise OSError(errno.EINVAL, "Invalid argument")
        accepted.append(text)

    monkeypatch.setattr(tracefs, "append", append)
    instance.add(SWITCHES, ONLINE, ONLINE)
    assert accepted == ["hist:keys=next_comm,cpu,next_pid:size=8192"]


def test_rejected_histogram_is_named_with_the_reason(
    kernel: MadeUpKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = made(kernel)

    def append(path: Path, text: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(tracefs, "append", append)
    with pytest.raises(Unseen) as caught:
        instance.add(SWITCHES, ONLINE, ONLINE)
    assert str(caught.value) == (
        "the kernel rejects a histogram of sched:sched_switch: Operation not permitted: run the"
        " command as root, and see /sys/kernel/security/lockdown"
    )


def test_kernels_without_histograms_are_named(kernel: MadeUpKernel) -> None:
    kernel.has_histograms = False
    with pytest.raises(Unseen, match="CONFIG_HIST_TRIGGERS"):
        made(kernel).add(SWITCHES, ONLINE, ONLINE)


def test_missing_event_is_named(kernel: MadeUpKernel) -> None:
    kernel.events = []
    with pytest.raises(Unseen, match="the kernel has no event sched:sched_switch"):
        made(kernel).add(SWITCHES, ONLINE, ONLINE)


def test_tracefs_that_is_not_mounted_gets_the_command(kernel: MadeUpKernel) -> None:
    shutil.rmtree(kernel.roots.tracefs)
    kernel.roots.tracefs.mkdir()
    with pytest.raises(Unseen, match=r"is not mounted at .*: mount -t tracefs nodev /"):
        made(kernel)


def test_kernels_without_tracing_are_named(kernel: MadeUpKernel) -> None:
    shutil.rmtree(kernel.roots.tracefs)
    with pytest.raises(Unseen, match="the kernel has no event tracing"):
        made(kernel)


def test_removal_leaves_nothing(kernel: MadeUpKernel) -> None:
    made(kernel).remove([SWITCHES])
    assert not kernel.instance.exists()


def test_instance_in_use_stops_counting_and_stays(kernel: MadeUpKernel) -> None:
    instance = made(kernel)
    instance.add(SWITCHES, ONLINE, ONLINE)
    instance.set_tracer("osnoise")
    kernel.is_busy = True
    instance.remove([SWITCHES])
    assert kernel.trigger("sched/sched_switch") == ""
    assert (kernel.instance / "current_tracer").read_text() == "nop"


def test_instance_that_stayed_is_named(kernel: MadeUpKernel) -> None:
    made(kernel)
    with pytest.raises(Unseen, match=r"a program has a file open in .*isolcpus-dp-measure"):
        made(kernel)
