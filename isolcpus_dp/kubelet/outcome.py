"""What a worker of the device plugin tells its parent: whom it called, and why it failed.

Also which CPUs are `late` (`host.machine`) and which ones the pools have claimed since: the next
worker must give the same ids to devices, and offer them as the same resources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.sockets import Identity


@dataclass(frozen=True)
class Earlier:
    """What the parent tells a worker: the kubelet that ended the worker before it.

    The worker waits `seconds` before it calls that kubelet again; any other is called at once.
    """

    kubelet: Identity | None = None
    seconds: float = 0.0


class Reporter:
    """The worker's side; `tell` sends a line to the parent."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._called: Identity | None = None
        self._late = frozenset[int]()

    def called(self, kubelet: Identity) -> None:
        """A kubelet was called, to register. Told once: it may be called many times."""
        if kubelet == self._called:
            return
        self._called = kubelet
        self._tell(f"called {kubelet.inode} {kubelet.bound_ns}")

    def late(self, cpus: frozenset[int]) -> None:
        """These CPUs are late. Told once."""
        if cpus != self._late:
            self._late = cpus
            self._tell(f"late {cpulist.render(cpus)}")

    def claimed(self, resources: Mapping[int, str]) -> None:
        """By CPU that a pool has claimed now: the resource of the pool."""
        for cpu, resource in resources.items():
            self._tell(f"claimed {cpu} {resource}")

    def registered(self) -> None:
        """All resources are registered."""
        self._tell("registered")

    def failed(self, sentence: str) -> None:
        """The worker cannot serve."""
        self._tell(f"failed {sentence}")


@dataclass(frozen=True)
class Outcome:
    """The parent's side: what a worker has told until it ended."""

    kubelet: Identity | None  # the last one that it called
    registered: bool
    failure: str  # a sentence, or the traceback of an internal error; empty if there was none
    late: frozenset[int] = frozenset()
    claimed: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def read(lines: Iterable[str]) -> Outcome:
        """The outcome from the lines that a worker has told."""
        kubelet, registered, failure = None, False, []
        late, claimed = frozenset[int](), dict[int, str]()
        for line in lines:
            word, _, rest = line.partition(" ")
            if match := re.fullmatch(r"called (\d+) (\d+)", line):
                kubelet = Identity(*map(int, match.groups()))
            elif re.fullmatch(r"late [\d,-]+", line):
                late |= cpulist.parse(rest)
            elif match := re.fullmatch(r"claimed (\d+) (\S+)", line):
                claimed[int(match[1])] = match[2]
            elif line == "registered":
                registered = True
            else:
                failure.append(rest if word == "failed" else line)
        return Outcome(kubelet, registered, "\n".join(failure), late, claimed)
