"""The containers whose last update the runtime has not confirmed.

Such a container may run on other CPUs than the runtime says: an update that failed, or that was
sent before the container started, changes only the runtime's own record. It is updated again, with
everything that it should have, until an update succeeds. This outlives a connection.
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
        """To be called before an update is sent whose result will tell."""
        self._containers.add(container)

    def confirm(self, container: str) -> None:
        """To be called when an update has succeeded."""
        self._containers.discard(container)

    def keep(self, containers: Iterable[str]) -> None:
        """Forgets all that are not among these: they have ended."""
        self._containers.intersection_update(containers)
