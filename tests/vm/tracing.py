"""Keeps tracepoints of a guest's kernel switched on, so that `measure` does not switch them."""

from __future__ import annotations

from .guest import Guest

INSTANCES = "/sys/kernel/tracing/instances"

# The kernel changes its own code when a tracepoint gets its first and its second user, and an
# emulated kernel may crash then. Here two users come before anything is busy, and stay. They record
# nothing.
USERS = f"""\
for name in first second; do
    mkdir {INSTANCES}/$name
    cd {INSTANCES}/$name
    echo 0 > tracing_on
    echo 4 > buffer_size_kb
    for event in sched/sched_switch sched/sched_migrate_task workqueue/workqueue_execute_start \\
            irq irq_vectors osnoise; do
        test ! -e events/$event || echo 1 > events/$event/enable
    done
done
"""


def keep_tracepoints_on(guest: Guest) -> None:
    """Switches on what `measure` records. Call it while the CPUs of the guest are idle."""
    guest.run(USERS)
