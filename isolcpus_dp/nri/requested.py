"""The cpusets that containers had, or would have, without pinning.

The runtime reports only the cpuset that a container has now, which may be what this daemon has set.
With the earlier one, a container gets CPUs back when fewer are withheld than before: CPUs were
added, came online (cgroup v1), or KeepOthersOff= is no now.

An entry counts only while the runtime reports a cpuset that the daemon has set: after any other
change, the runtime's report counts. The table outlives a connection, and ends with the daemon. For
the next one, a container that the daemon has changed at its creation carries a note: an annotation
with both cpusets. The daemon never puts a container on CPUs that it must not use because of a note.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isolcpus_dp.api import nri_pb2 as api

# Such as "all 0-1,4-5": the requested cpuset, and the one that was given instead.
NOTE = "isolcpus-dp/requested-cpuset"
_ALL = "all"


def note(requested: str, given: str) -> str:
    """The value of the annotation."""
    return f"{requested or _ALL} {given}"


class _Entry(NamedTuple):
    requested: str  # the CPU list without pinning; empty for all CPUs
    given: set[str]  # the CPU lists that the daemon has set instead


class Requested:
    """By container id: the CPU list without pinning."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def cpuset(self, container: str, reported: str) -> str:
        """The CPU list that a container would have; `reported` is the one that it has."""
        entry = self._entries.get(container)
        return entry.requested if entry and reported in entry.given else reported

    def replace(self, container: str, requested: str, given: str) -> None:
        """To be called when the daemon sets `given` instead of `requested`.

        An update may fail, so the earlier CPU lists that were given for `requested` count, too.
        """
        entry = self._entries.get(container)
        if entry is None or entry.requested != requested:
            entry = self._entries[container] = _Entry(requested, set())
        entry.given.add(given)

    def recall(self, pod: api.PodSandbox, container: api.Container) -> None:
        """Reads the note of a container of which nothing is known.

        A pod's author may set annotations of the pod, which some runtimes copy to its containers.
        """
        if container.id in self._entries or not pod.id or NOTE in pod.annotations:
            return
        requested, _, given = container.annotations.get(NOTE, "").partition(" ")
        if given:
            self.replace(container.id, "" if requested == _ALL else requested, given)

    def keep(self, containers: Iterable[str]) -> None:
        """Removes all containers that are not among these: they have ended."""
        existing = set(containers)
        self._entries = {id_: one for id_, one in self._entries.items() if id_ in existing}

    def ended(self, container: str) -> None:
        """To be called when a container has ended or was removed, with its id."""
        self._entries.pop(container, None)
