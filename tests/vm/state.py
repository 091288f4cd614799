"""Starts guests: a machine is booted once, its state is saved, and each guest resumes from it.

An emulated machine needs 20 s or more to boot, and about 2 s to resume from a saved state. The
states of an image are in its folder in the cache, and are removed with it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .disk import make_disk
from .guest import Guest, NeverCameUp
from .image import Image, locked
from .qemu import Lost, Machine, boots, continues, resumes, running

HERE = Path(__file__).parent

# One core of each NUMA node belongs to the workload.
ISOLATED = "isolcpus=nohz,domain,managed_irq,2-3,6-7 nohz_full=2-3,6-7"

# The same size for all, because a resumed guest does not notice another size. The file is sparse.
FILES_SIZE = 256 << 20

# Per image; the least recently used ones are removed.
KEPT_STATES = 4

logger = logging.getLogger(__name__)


class UnusableState(Exception):
    """qemu could not resume from a state."""


@dataclass(frozen=True)
class State:
    """A booted machine: a qcow2 overlay with what it wrote to its disk, and its memory."""

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
    """A freshly booted guest, with `files` in /mnt/files; its console goes to `log`.

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
def prepared(
    image: Image,
    prepare: Callable[[Guest], None],
    *,
    append: str = ISOLATED,
    files: Sequence[Path] = (),
    log: Path,
) -> Iterator[Callable[[], AbstractContextManager[Guest]]]:
    """Prepares a guest, saves its state, and yields a function that starts guests from it.

    They have `files` in /mnt/files, as in `start`. Raises NeverCameUp, as `start` does.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    machine = Machine(image, append)
    with tempfile.TemporaryDirectory() as scratch:
        disk = files_disk(files, Path(scratch))
        made = State(Path(scratch) / "state")
        made.folder.mkdir()
        state = saved(machine, log)
        create_overlay(state.disk, made.disk, "qcow2")
        with running(continues(machine, made.disk, state.memory, disk), log) as qemu:
            guest = Guest(qemu, log)
            try:
                guest.resume()
            except Lost as lost:
                shutil.rmtree(state.folder, ignore_errors=True)
                raise NeverCameUp(str(lost)) from lost
            prepare(guest)
            guest.run("umount /mnt/files && sync")
            qemu.save(made.memory)

        @contextmanager
        def start_prepared() -> Iterator[Guest]:
            with ExitStack() as stack:
                try:
                    guest = stack.enter_context(resumed(machine, made, disk, log))
                except UnusableState as error:
                    raise NeverCameUp(str(error)) from error
                yield guest

        yield start_prepared


@contextmanager
def resumed(machine: Machine, state: State, files: Path, console: Path) -> Iterator[Guest]:
    with running(resumes(machine, state.disk, state.memory, files), console) as qemu:
        guest = Guest(qemu, console)
        try:
            guest.resume()
        except Lost as lost:
            raise UnusableState(str(lost)) from lost
        yield guest


def saved(machine: Machine, console: Path) -> State:
    """Returns the state of the machine; boots and saves it if there is none yet."""
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
    """Changes with the machine, the version of qemu, the CPU of the host, and this code."""
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE, check=True
    ).stdout
    # The emulated TSC runs at the frequency of the host's TSC.
    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    digest = hashlib.sha256(repr((machine.arguments(), version, cpu)).encode())
    for name in ("guest.py", "qemu.py", "state.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def save(machine: Machine, state: State, console: Path) -> None:
    """Boots the machine and saves its state.

    A failed boot is tried once more: sometimes an emulated kernel hangs or panics while it starts
    its CPUs. Raises NeverCameUp if the second boot fails as well.
    """
    try:
        boot(machine, state, console)
    except NeverCameUp as error:
        logger.warning("booting the guest once more: %s", error)
        shutil.rmtree(state.folder)
        boot(machine, state, console)


def boot(machine: Machine, state: State, console: Path) -> None:
    state.folder.mkdir()
    create_overlay(machine.image.disk, state.disk, "raw")
    with tempfile.TemporaryDirectory() as scratch:
        files = files_disk((), Path(scratch))
        with running(boots(machine, state.disk, files), console) as qemu:
            guest = Guest(qemu, console)
            guest.finish_boot()
            # On a busy host a kernel may measure a wrong frequency of its clock.
            if not 0.5 < (rate := guest.clock_rate()) < 1.5:
                raise NeverCameUp(f"{rate:.1f} seconds pass in the guest while one passes here")
            qemu.save(state.memory)


def create_overlay(base: Path, overlay: Path, base_format: str) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", base, overlay],
        check=True,
    )


def files_disk(files: Sequence[Path], scratch: Path) -> Path:
    content = scratch / "files"
    content.mkdir()
    for file in files:
        shutil.copy(file, content)
    disk = scratch / "files.ext4"
    make_disk(disk, content, FILES_SIZE)
    return disk
