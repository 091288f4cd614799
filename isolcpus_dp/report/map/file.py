"""Replaces the file of a picture atomically, without following links of other users."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from isolcpus_dp.report.map import PictureError


def replace(path: Path, text: str) -> None:
    """Writes the text to a file, or to the target of this user's link. Raises PictureError."""
    # The target of a link is replaced, not the link: /dev/stdout is a link. But in a directory such
    # as /tmp, a link of another user may lead to a file that only this process's user can write.
    target, temporary = path.parent.resolve() / path.name, None
    try:
        if path.is_symlink():
            if path.lstat().st_uid not in (0, os.geteuid()):
                raise PictureError(
                    f"{path} is a symbolic link of another user: give --svg another file"
                )
            target = path.resolve()
        if target.exists() and not target.is_file():
            raise PictureError(f"{path} is not a regular file: give --svg another file")
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        with beside.open("x", encoding="utf-8") as file:
            temporary = beside
            file.write(text)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            if temporary:
                temporary.unlink()
        raise PictureError(
            f"{path} cannot be written: {error.strerror}: choose another file"
        ) from error
