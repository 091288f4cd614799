"""How a session with a container runtime ended, and when the next one begins.

| outcome        | next connection                                                               |
|----------------|-------------------------------------------------------------------------------|
| ABSENT         | when the socket is created, and several times within the 4 s after that       |
| REFUSED        | to another socket as soon as there is one; to the same one after 5 s          |
| PROTOCOL_ERROR | the same as REFUSED                                                           |
| LEFT           | to another socket as soon as there is one; to the same one after 0.1 s        |
| DROPPED        | the same as LEFT, but after twice the time whenever it follows another one,   |
|                | up to 5 s                                                                     |
| OUTDATED       | at once                                                                       |
"""

from __future__ import annotations

import enum

# In seconds.
_SHORTEST_DELAY, LONGEST_DELAY = 0.1, 5.0


class Outcome(enum.Enum):
    """The docstring of `session` explains each one."""

    ABSENT = enum.auto()
    REFUSED = enum.auto()
    PROTOCOL_ERROR = enum.auto()
    LEFT = enum.auto()
    DROPPED = enum.auto()
    OUTDATED = enum.auto()

    def retry_seconds(self, times: int) -> float:
        """The delay before the next connection to the same socket.

        `times` is the number of sessions in a row that had this outcome.
        """
        if self in (Outcome.REFUSED, Outcome.PROTOCOL_ERROR):
            return LONGEST_DELAY
        if self is Outcome.OUTDATED:
            return 0.0
        doublings = times - 1 if self is Outcome.DROPPED else 0
        return min(_SHORTEST_DELAY * 2.0 ** min(doublings, 10), LONGEST_DELAY)
