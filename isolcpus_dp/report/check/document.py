"""Reads a YAML or JSON document: the kubelet's configuration, or the manifest of a static pod."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path
from typing import Any

from isolcpus_dp.report.check import files

_MOST_BYTES = 1 << 20  # the largest document that is read


def text(file: Path) -> str:
    """The text of a file; empty if the file is missing. Raises Unseen.

    The path is from a command line or a directory of others, and may be a device or a pipe.
    """
    with contextlib.suppress(OSError):  # files.text() reports other errors
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES):
            raise files.Unseen(f"{file} is not a regular file of at most {_MOST_BYTES >> 20} MiB")
    return files.text(file)


def parse(file: Path, text: str) -> dict[str, Any]:
    """The first document in the text of a file; empty if it is no mapping. Raises Unseen."""
    # PyYAML does not accept the tabs that JSON allows.
    with contextlib.suppress(ValueError, RecursionError):
        return _mapping(json.loads(text))
    try:
        import yaml  # only checks of the kubelet need it
    except ImportError:
        raise files.Unseen(f"cannot read {file} without PyYAML: install python3-yaml") from None
    try:
        # As the kubelet does, only the first document is used.
        return _mapping(next(iter(yaml.safe_load_all(text)), None))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A value such as 2026-99-99 is a ValueError.
        reason = str(error).replace("\n", " ")
        raise files.Unseen(f"{file} is not valid YAML: {reason}") from error


def _mapping(document: Any) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}
