"""Reads single files of sysfs: texts, numbers and CPU lists. What they mean is in `machine`."""

from __future__ import annotations

import errno
import functools
import os

from isolcpus_dp.host import cpulist

# The errors of a file that is not there. A file in use when its CPU goes offline gives ENODEV.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})

_PAGE = 4096


class MachineError(Exception):
    """sysfs lists no CPUs, or one of its files is invalid or cannot be read; one sentence."""


def list_names(directory: str) -> list[str]:
    """The names in a directory; none if it is absent. Raises MachineError."""
    try:
        return os.listdir(directory)  # noqa: PTH208 (faster; called several times per CPU)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise MachineError(f"cannot read {directory}: {error.strerror}") from error


def read_number(path: str) -> int | None:
    """The number in a file; None if there is none, or if it is -1: the kernel's unknown."""
    text = read_text(path)
    return int(text) if text.isdecimal() else None


def read_cpus(path: str) -> frozenset[int]:
    """The CPUs of a list; none if the file is absent. Raises MachineError."""
    try:
        return _parsed(read_text(path))
    except cpulist.CpuListError as error:
        raise MachineError(f"{path} is not a CPU list: {error}") from error


# All CPUs of a core or a cache have the same list. With equal sets kept once, a machine takes a
# tenth of the memory, and of the time to read it.
_parsed = functools.lru_cache(maxsize=4096)(cpulist.parse)


def forget_cpus() -> None:
    """To be called before all lists are read again: each new machine would add its own."""
    _parsed.cache_clear()


def read_text(path: str) -> str:
    """The text of a sysfs file; empty if it is absent: a CPU may just have gone offline.

    Raises MachineError for any other error: a file that cannot be read is not an absent one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = part = os.read(descriptor, 65536)
            # One plain read is several times as fast as open(). Only a list of thousands of CPUs
            # may need more: the kernel returns at most a page of some files at a time.
            while len(part) >= _PAGE:
                part = os.read(descriptor, 65536)
                data += part
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABSENT:
            return ""
        raise MachineError(f"cannot read {path}: {error.strerror}") from error
    # Linux 5.15 to 5.19 print the final zero byte of a list, too (bitmap_print_to_buf()).
    return data.decode("ascii", "replace").rstrip("\0 \t\n").lstrip()
