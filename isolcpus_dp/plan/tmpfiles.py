"""Host tuning without TuneD: files for systemd-sysctl and systemd-tmpfiles, which run at boot.

A setting that the kernel does not have is skipped: both ignore missing files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from isolcpus_dp.plan.part import MARK, File
from isolcpus_dp.report.check.settings import SETTINGS, Cpus, Setting

SYSCTL = PurePosixPath("/etc/sysctl.d/90-isolcpus-dp.conf")
TMPFILES = PurePosixPath("/etc/tmpfiles.d/isolcpus-dp.conf")
PATHS = (SYSCTL, TMPFILES)


def files(cpus: Cpus) -> tuple[File, ...]:
    """A file for sysctl, and one for all other settings."""
    sysctl, others = [f"# {MARK}"], [f"# {MARK}"]
    for setting in SETTINGS:
        lines = sysctl if setting.sysctl else others
        lines += ["", f"# {setting.why}"]
        if setting.sysctl:
            lines.append(f"{setting.sysctl} = {setting.value(cpus)}")
        else:
            # Type w writes to existing files; with -, a failure does not make the unit fail.
            lines += [f"w- {path} - - - - {setting.value(cpus)}" for path in _paths(setting, cpus)]
    return (File(SYSCTL, _text(sysctl)), File(TMPFILES, _text(others)))


def _paths(setting: Setting, cpus: Cpus) -> list[str]:
    """The paths of a setting; a pattern may stand for several."""
    if not setting.per_cpu:
        return [setting.path]
    return [setting.path.format(cpu=pattern) for pattern in patterns(cpus.isolated)]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def patterns(numbers: Iterable[int]) -> list[str]:
    """Patterns of the shell that match these numbers and no others: `[2-9]`, `1[0-5]`."""
    found: list[str] = []
    left = sorted(set(numbers))
    while left:
        low, length = left[0], 1
        while length < len(left) and left[length] == low + length:
            length += 1
        found += _range_patterns(low, left[length - 1])
        left = left[length:]
    return found


def _range_patterns(low: int, high: int) -> Iterator[str]:
    """Patterns of the numbers from low to high: each leaves a number of last digits open."""
    while low <= high:
        size = 1
        while low and low % (size * 10) == 0 and low + size * 10 <= high + 1:
            size *= 10
        before, first = divmod(low // size, 10)
        last = min(9, first + (high + 1 - low) // size - 1)
        digit = f"{first}" if first == last else f"[{first}-{last}]"
        yield f"{before or ''}{digit}{'[0-9]' * (len(str(size)) - 1)}"
        low += (last - first + 1) * size
