"""The containers whose last update the runtime has not confirmed.

Such a container may run on other CPUs than the runtime reports: an update that failed, that was
sent before the container started, or in which the runtime ended, changes only the runtime's own
record. The container is updated again with all its settings until an update succeeds. The set
outlives a connection.
"""

from __future__ import annotations

from collections.abc import Iterable


class Unconfirmed:
    """A set of container ids."""

    def __init__(self) -> None:
        self._containers: set[str] = set()

    def __contains__(self, container: str) -> bool:
        return container in self._containers

    def add(self, container: str) -> None:
        """To be called before an update is sent."""
        self._containers.add(container)

    def confirm(self, container: str) -> None:
        """To be called when an update has succeeded, or the runtime has gone on after it."""
        self._containers.discard(container)

    def ended(self, container: str) -> None:
        """To be called when a container was removed, with its id."""
        self._containers.discard(container)

    def keep(self, containers: Iterable[str]) -> None:
        """Removes all containers that are not among these: they have ended."""
        self._containers.intersection_update(containers)
