"""The socket on which container runtimes serve NRI."""

from __future__ import annotations

from pathlib import Path

DEFAULT_SOCKET = Path("/var/run/nri/nri.sock")
