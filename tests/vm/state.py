"""Starts guests: a machine is booted once, its state is saved, and each guest goes on from there.

To boot takes an emulated machine most of a minute, to go on from a saved state a few seconds. The
states of an image are beside it in the cache, and go with it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .disk import make_disk
from .guest import Guest, NeverCameUp
from .image import Image, locked
from .qemu import Lost, Machine, boots, resumes, running

HERE = Path(__file__).parent

# One core of each NUMA node belongs to the workload.
ISOLATED = "isolcpus=nohz,domain,managed_irq,2-3,6-7 nohz_full=2-3,6-7"

# The same for all, as a running guest does not see that a disk has grown; they are sparse.
FILES_SIZE = 256 << 20

# Of each image; those that were not used for the longest time go first.
KEPT_STATES = 4

logger = logging.getLogger(__name__)


class UnusableState(Exception):
    """qemu could not go on from it."""


@dataclass(frozen=True)
class State:
    """A machine right after its boot: what it has written to its disk, and its memory."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def memory(self) -> Path:
        return self.folder / "memory"


@contextmanager
def start(
    image: Image, *, append: str = ISOLATED, files: Sequence[Path] = (), log: Path
) -> Iterator[Guest]:
    """A guest right after its boot, with `files` in /mnt/files; its console goes to `log`.

    Raises NeverCameUp when its machine could not be booted.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    machine = Machine(image, append)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        disk = files_disk(files, Path(scratch))
        state = saved(machine, log)
        try:
            guest = stack.enter_context(resumed(machine, state, disk, log))
        except UnusableState as error:
            logger.warning("booting the guest: %s", error)
            shutil.rmtree(state.folder, ignore_errors=True)
            guest = stack.enter_context(resumed(machine, saved(machine, log), disk, log))
        yield guest


@contextmanager
def resumed(machine: Machine, state: State, files: Path, console: Path) -> Iterator[Guest]:
    with running(resumes(machine, state.disk, state.memory, files), console) as qemu:
        guest = Guest(qemu, console)
        try:
            guest.take_up()
        except Lost as lost:
            raise UnusableState(str(lost)) from lost
        yield guest


def saved(machine: Machine, console: Path) -> State:
    """The machine's state, made if there is none yet."""
    states = machine.image.disk.parent / "states"
    states.mkdir(exist_ok=True)
    entry = states / key(machine)
    with locked(states):
        if not entry.exists():
            with tempfile.TemporaryDirectory(dir=states) as scratch:
                made = Path(scratch) / "state"
                save(machine, State(made), console)
                made.rename(entry)
        os.utime(entry)
        remove_outdated(states)
    return State(entry)


def remove_outdated(states: Path) -> None:
    by_age = sorted(states.iterdir(), key=lambda state: state.stat().st_mtime)
    for outdated in by_age[:-KEPT_STATES]:
        shutil.rmtree(outdated)


def key(machine: Machine) -> str:
    """Changes with the machine, with the emulator and its CPU, and with how we go about it."""
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, check=True
    ).stdout
    # The emulated clock has the frequency of this host's.
    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    digest = hashlib.sha256(repr((machine.arguments(), version, cpu)).encode())
    for name in ("guest.py", "qemu.py", "state.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def save(machine: Machine, state: State, console: Path) -> None:
    """Boots the machine for its state.

    One that never came up is booted once more: now and then an emulated kernel hangs or panics
    while it starts its CPUs. Raises NeverCameUp when the second does not come up either.
    """
    try:
        boot(machine, state, console)
    except NeverCameUp as error:
        logger.warning("booting the guest once more: %s", error)
        shutil.rmtree(state.folder)
        boot(machine, state, console)


def boot(machine: Machine, state: State, console: Path) -> None:
    state.folder.mkdir()
    create_overlay(machine.image.disk, state.disk)
    with tempfile.TemporaryDirectory() as scratch:
        files = files_disk((), Path(scratch))
        with running(boots(machine, state.disk, files), console) as qemu:
            guest = Guest(qemu, console)
            guest.finish_boot()
            # On a busy host a kernel may take its clock for one of another frequency.
            if not 0.5 < (rate := guest.clock_rate()) < 1.5:
                raise NeverCameUp(f"{rate:.1f} seconds pass in the guest while one passes here")
            qemu.save(state.memory)


def create_overlay(base: Path, overlay: Path) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay], check=True
    )


def files_disk(files: Sequence[Path], scratch: Path) -> Path:
    content = scratch / "files"
    content.mkdir()
    for file in files:
        shutil.copy(file, content)
    disk = scratch / "files.ext4"
    make_disk(disk, content, FILES_SIZE)
    return disk
