"""Converts the kernel's CPU lists to sets of CPU numbers, and back.

The format is described under "cpu lists" in admin-guide/kernel-parameters.rst. Whether a CPU exists
is not checked here; see `machine`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# The most CPUs that a Linux kernel can be built for (CONFIG_NR_CPUS with MAXSMP). A higher number
# is a mistake, and a range up to it could exhaust the memory.
MOST_CPUS = 8192

# A list of at most this length is rendered without groups.
_SHORT = 60

_NUMBER = re.compile(r"[0-9]{1,20}")
_RANGE = re.compile(r"([0-9]{1,20}|N)(?:-([0-9]{1,20}|N))?(?::([0-9]{1,20})/([0-9]{1,20}))?")


class CpuListError(ValueError):
    """A text is not a valid CPU list; `part` is its invalid part."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"'{part}' {reason}")
        self.part = part


def parse(text: str) -> frozenset[int]:
    """The CPUs of a list as the kernel prints it in sysfs: `2-3,6-7`, or an empty text.

    Raises CpuListError.
    """
    return _union(_parts(text), _kernel_range)


def parse_configured(text: str, last: int) -> frozenset[int]:
    """The CPUs of a list as the kernel accepts it on its command line.

    In addition to `parse` it accepts `all`, `N` for the CPU `last`, and groups: `0-31:2/8` is the
    first two of every eight CPUs. White space around commas is ignored.

    Raises CpuListError, also for a CPU beyond `last`.
    """
    return _union(_parts(text), lambda part: _configured_range(part.strip(), last))


def parse_argument(text: str, last: int) -> frozenset[int]:
    """The CPUs of a list on the kernel's own command line; `last` is its highest bit.

    The format of `parse_configured`, but commas and white space separate parts in any number, also
    at the ends, and a group may use none of its CPUs (bitmap_parselist() in lib/bitmap-str.c).

    Raises CpuListError, also for a CPU beyond `last`, where the kernel ignores the argument.
    """
    parts = re.split(r"[,\s]+", text)
    return _union(filter(None, parts), lambda part: _configured_range(part, last, least_used=0))


def parse_mask(text: str) -> frozenset[int]:
    """The CPUs of a mask as the kernel prints it: hexadecimal, `00000000,000000cc`.

    Raises CpuListError.
    """
    digits = text.strip().replace(",", "")
    if not re.fullmatch(r"[0-9a-fA-F]{1,2048}", digits):
        raise CpuListError(text.strip(), "is not a hexadecimal CPU mask")
    mask = int(digits, 16)
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def render(cpus: Iterable[int]) -> str:
    """The CPUs as the kernel prints them: ascending, with ranges; an empty text for no CPUs."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)


def render_mask(cpus: Iterable[int]) -> str:
    """The CPUs as a mask that the kernel accepts: `c,00000003` for the CPUs 0, 1, 34 and 35.

    It reads hexadecimal digits in groups of eight with commas, without which it accepts no more
    than one group (bitmap_parse() in lib/bitmap-str.c). The mask of no CPUs is `0`.
    """
    digits = f"{sum(1 << cpu for cpu in set(cpus)):x}"
    first = len(digits) % 8
    groups = [digits[start : start + 8] for start in range(first, len(digits), 8)]
    return ",".join([digits[:first], *groups] if first else groups)


def render_argument(cpus: Iterable[int]) -> str:
    """The CPUs for an argument of the kernel, in a short form.

    Plain ranges as long as they are short: every program that reads /proc/cmdline understands
    them. Otherwise groups as well, such as `1-63:7/8`. Never `N` or `all`: isolcpus= takes a list
    that begins with a letter for a flag (housekeeping_isolcpus_setup()).
    """
    plain = render(cpus)
    if len(plain) <= _SHORT:
        return plain
    runs = [_kernel_range(part) for part in plain.split(",")]
    # The shortest text for the runs from each one on.
    shortest = [""] * (len(runs) + 1)
    for first in range(len(runs) - 1, -1, -1):
        candidates = (
            text + ("," if shortest[following] else "") + shortest[following]
            for text, following in _beginnings(runs, first)
        )
        shortest[first] = min(candidates, key=len)
    return shortest[0]


def _beginnings(runs: list[range], first: int) -> Iterable[tuple[str, int]]:
    """Texts for one run, or for several as a group; and the number of the run after them."""
    run = runs[first]
    yield (f"{run.start}" if len(run) == 1 else f"{run.start}-{run[-1]}"), first + 1
    if first + 1 == len(runs):
        return
    size = runs[first + 1].start - run.start
    last = first
    while (
        last + 1 < len(runs)
        and len(runs[last + 1]) == len(run)
        and runs[last + 1].start - runs[last].start == size
    ):
        last += 1
    if last > first:
        yield f"{run.start}-{runs[last][-1]}:{len(run)}/{size}", last + 1


def _parts(text: str) -> list[str]:
    stripped = text.strip()
    return stripped.split(",") if stripped else []


def _union(
    parts: Iterable[str], cpus_of: Callable[[str], range | frozenset[int]]
) -> frozenset[int]:
    found, named = [], 0
    for part in parts:
        found.append(cpus_of(part))
        named += len(found[-1])
        # Useful lists are far below this limit; adding up a larger one may take minutes.
        if named > 4 * MOST_CPUS:
            raise CpuListError(part, "names the same CPUs too many times")
    return frozenset().union(*found)


def _kernel_range(part: str) -> range:
    low, dash, high = part.partition("-")
    if not _NUMBER.fullmatch(low) or (dash and not _NUMBER.fullmatch(high)):
        raise CpuListError(part, "is neither a CPU number nor a range such as 2-3")
    return _checked_range(part, int(low), int(high or low), MOST_CPUS - 1)


def _configured_range(part: str, last: int, least_used: int = 1) -> range | frozenset[int]:
    # The kernel accepts "all" for "0-N" in place of any range, in upper or lower case.
    match = _RANGE.fullmatch(re.sub("(?i)^all", "0-N", part))
    if not match or (match[3] and not match[2]):
        raise CpuListError(part, "is not a CPU number, a range (2-3), a group (0-31:2/8), N or all")
    low, high = (last if end == "N" else int(end) for end in (match[1], match[2] or match[1]))
    cpus = _checked_range(part, low, high, last)
    if not match[3]:
        return cpus
    used, size = int(match[3]), int(match[4])
    if size == 0 or not least_used <= used <= size:
        raise CpuListError(part, "must use at least one CPU of a group and at most all of it")
    return frozenset(cpu for cpu in cpus if (cpu - cpus.start) % size < used)


def _checked_range(part: str, low: int, high: int, last: int) -> range:
    if low > high:
        raise CpuListError(part, "ends before it starts")
    if high > last:
        raise CpuListError(part, f"goes beyond CPU {last}, the highest possible CPU")
    return range(low, high + 1)
