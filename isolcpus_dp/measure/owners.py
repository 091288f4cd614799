"""Who owns which CPUs, before and while a measurement runs. Waits for events, does not poll.

The kubelet admits a pod in this order: it calls Allocate, writes its checkpoint, and then creates
the container. So the checkpoint is read at once when it is replaced, and a CPU that has a new entry
is owned from then on. The kubelet is asked after that: it knows the names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.config import ConfigError
from isolcpus_dp.host import directories, files, hotplug, inotify
from isolcpus_dp.host.machine import Machine, MachineError
from isolcpus_dp.kubelet import paths
from isolcpus_dp.measure import checkpoint
from isolcpus_dp.report import snapshot, watch
from isolcpus_dp.service import process

if TYPE_CHECKING:
    from isolcpus_dp.measure.request import Host
    from isolcpus_dp.pool import Pool

PROC = Path("/proc")
# A new socket of the kubelet exists just before the kubelet answers on it.
_SETTLE_SECONDS = 0.05


class OwnersUnknown(Exception):
    """There is a kubelet, and it cannot be asked; the message is one sentence."""


@dataclass(frozen=True)
class Ownership:
    """The owners of CPUs at one moment."""

    machine: Machine
    pools: tuple[Pool, ...]
    kubelet_root: Path
    owners: Mapping[int, str]  # by owned CPU: namespace/pod/container
    entries: frozenset[checkpoint.Entry]  # of the checkpoint, read before all else


def look(host: Host, proc: Path = PROC) -> Ownership:
    """Who owns which CPUs now. Raises OwnersUnknown, MachineError and ConfigError.

    On a host that has no kubelet, no CPU has an owner.
    """
    try:
        entries = checkpoint.read(host.kubelet_dir)
    except files.Unseen as error:
        raise OwnersUnknown(f"which CPUs containers own is unknown: {error}") from error
    seen = snapshot.take(host.sysfs, host.config_file, host.kubelet_dir)
    if seen.unseen and _has_kubelet(host.kubelet_dir, seen.kubelet_root):
        raise OwnersUnknown(
            "which CPUs containers own is unknown, and no busy loop may run on these; "
            + "; ".join(seen.unseen)
        )
    owners: dict[int, str] = {}
    for owner in seen.owners:
        for cpu in owner.cpus:
            name = str(owner.allocation)
            owners[cpu] = f"{owners[cpu]} and {name}" if cpu in owners else name
    try:
        # The kubelet does not list init containers that own CPUs.
        held = checkpoint.cpus(entries, seen.pools)
        unlisted = {cpu: entry for cpu, entry in held.items() if cpu not in owners}
        alive = checkpoint.running(unlisted.values(), proc)
    except files.Unseen as error:
        raise OwnersUnknown(f"which CPUs init containers own is unknown: {error}") from error
    owners.update({cpu: str(entry) for cpu, entry in unlisted.items() if entry in alive})
    return Ownership(seen.machine, seen.pools, seen.kubelet_root, owners, entries)


def _has_kubelet(kubelet_dir: Path, kubelet_root: Path) -> bool:
    """Whether a kubelet runs or has run: it leaves its files when it ends, and its containers."""
    return any(
        file.exists()
        for file in (
            paths.registration_socket(kubelet_dir),
            paths.checkpoint(kubelet_dir),
            paths.pod_resources_socket(kubelet_root),
        )
    )


class Watch:
    """Calls back when CPUs get an owner or go offline. An asynchronous context manager.

    While the kubelet does not answer, it admits no pod, so that nothing gets an owner. It is asked
    again when it comes back.
    """

    def __init__(
        self,
        host: Host,
        before: Ownership,
        on_owned: Callable[[Mapping[int, str]], None],
        on_online: Callable[[frozenset[int]], None],
        on_failed: Callable[[str], None],
        proc: Path = PROC,
    ) -> None:
        """`on_owned` gets the owner by CPU, of new owners or of all; a later name is a better one.

        `on_online` gets the online CPUs. `on_failed` is called with the reason, as one sentence,
        if there will be no further calls.
        """
        self._host = host
        self._last = before
        self._on_owned = on_owned
        self._on_online = on_online
        self._on_failed = on_failed
        self._proc = proc
        self._known = before.entries
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        """Returns when everything that has changed since `before` was reported.

        Raises OwnersUnknown, MachineError, ConfigError, and OSError if watches are used up.
        """
        self._changed = asyncio.Event()
        looked = asyncio.Event()
        self._task = asyncio.create_task(self._follow(looked))
        waiting = asyncio.create_task(looked.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await process.cancel([self._task])
            raise
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._task
        self._task.remove_done_callback(self._ended)
        await process.cancel([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._on_failed(process.explain(error) if isinstance(error, OSError) else str(error))

    async def _follow(self, looked: asyncio.Event) -> None:
        plugins = paths.device_plugins(self._host.kubelet_dir)
        with hotplug.watch(self._host.sysfs, self._changed.set):
            while True:
                root = self._last.kubelet_root
                with (
                    inotify.Watch() as steps,
                    directories.DirectoryWatch(plugins, steps) as place,
                    watch.allocations(self._host.kubelet_dir, root, self._allocated),
                ):
                    moved = asyncio.create_task(place.changed.wait())
                    moved.add_done_callback(lambda _: self._changed.set())
                    try:
                        await self._look_until_moved(place, root, looked)
                    finally:
                        moved.cancel()

    async def _look_until_moved(
        self, place: directories.DirectoryWatch, root: Path, looked: asyncio.Event
    ) -> None:
        """Looks after each event, until other directories must be watched."""
        self._allocated()
        while not place.changed.is_set() and self._last.kubelet_root == root:
            self._changed.clear()
            try:
                self._last = await asyncio.get_running_loop().run_in_executor(
                    None, look, self._host, self._proc
                )
            except (OwnersUnknown, MachineError, ConfigError):
                if not looked.is_set():
                    raise
            else:
                self._on_online(self._last.machine.online)
                self._on_owned(self._last.owners)
                looked.set()
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)

    def _allocated(self) -> None:
        """Reports the CPUs of new entries of the checkpoint at once."""
        try:
            entries = checkpoint.read(self._host.kubelet_dir)
        except files.Unseen:
            entries = self._known  # the kubelet is asked
        new, self._known = entries - self._known, entries
        held = checkpoint.cpus(new, self._last.pools)
        if held:
            self._on_owned({cpu: str(entry) for cpu, entry in held.items()})
        self._changed.set()
