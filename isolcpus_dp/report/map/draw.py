"""`isolcpus-dp map`: the host as a picture in the terminal, or in an SVG file.

Only what a Snapshot says is drawn. Letters tell everything that the colours tell.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isolcpus_dp.host import cpulist
from isolcpus_dp.report import snapshot

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Cpu, Machine
    from isolcpus_dp.report.snapshot import Owner, Snapshot

# Wide enough for every machine, and what a ticket or a wiki shows without scrolling.
SVG_WIDTH = 80

_GAP = "  "  # between cores
_FRAMES = 8  # columns of a package's frame and of a NUMA node's in it
# Most of the legend's room is for names: a long CPU list takes several lines.
_LIST_WIDTH = 24

HOUSEKEEPING, FREE, NOT_OFFERED, OFFLINE, DISPUTED = ".", "o", "-", "x", "!"

# Backgrounds that differ from each other and from what the other states use, under black letters.
# After the last one the first is used again: the letters differ.
_OWNER_STYLES = tuple(
    f"black on {colour}"
    for colour in (
        "#5fafff",
        "#ffaf5f",
        "#af87ff",
        "#5fd7d7",
        "#ff87af",
        "#afd75f",
        "#d7af87",
        "#87afaf",
        "#ffd75f",
        "#d787d7",
    )
)


class PictureError(Exception):
    """The picture cannot be drawn where it should be; one sentence says why."""


@dataclass(frozen=True)
class Mark:
    """A line of the legend: a state or an owner, and the letters that stand for it."""

    label: str
    style: str
    what: str
    cpus: frozenset[int]
    resource: str = ""


@dataclass(frozen=True)
class Part:
    """Cores under one heading; every core is its CPUs in ascending order."""

    heading: str
    cores: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Node:
    """What one package has of a NUMA node; None on a host without NUMA."""

    number: int | None
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Package:
    """None is for CPUs of which the kernel does not tell the package."""

    number: int | None
    nodes: tuple[Node, ...]


def show(sysfs: Path, config_file: Path | None, kubelet_dir: Path) -> None:
    """Draws the host in the terminal. Raises PictureError, and what snapshot.take() raises."""
    seen = snapshot.take(sysfs, config_file, kubelet_dir)
    _draw(seen, Console())


def write(sysfs: Path, config_file: Path | None, kubelet_dir: Path, svg: Path) -> None:
    """Draws the host into a file. Raises PictureError, and what snapshot.take() raises."""
    seen = snapshot.take(sysfs, config_file, kubelet_dir)
    _replace(svg, as_svg(seen))


def follow(sysfs: Path, config_file: Path | None, kubelet_dir: Path) -> None:
    """Draws the host in the terminal until KeyboardInterrupt, again whenever it changes.

    Raises PictureError, and what snapshot.take() raises.
    """
    # 20 ms that a picture which stands still does not need.
    import asyncio

    from isolcpus_dp.report import watch

    console = Console()

    def draw_anew(seen: Snapshot) -> None:
        # Not on a screen of its own: a picture that is longer than it can be scrolled, and the
        # last one stays.
        console.clear()
        _draw(seen, console)

    asyncio.run(watch.follow(sysfs, config_file, kubelet_dir, draw_anew))


def as_svg(seen: Snapshot) -> str:
    """The picture as an SVG document."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=SVG_WIDTH,
        force_terminal=True,
        color_system="truecolor",
    )
    _draw(seen, console)
    return console.export_svg(title="isolcpus-dp map")


def picture(seen: Snapshot, width: int) -> RenderableType:
    """The host in frames, the legend, and what could not be seen; no line is wider than `width`."""
    legend = marks(seen)
    of_cpu = _of_cpu(seen.machine, legend)
    frames = [_package(one, of_cpu, width) for one in packages(seen.machine)]
    unseen = [Text(f"not seen: {sentence}", overflow="fold") for sentence in seen.unseen]
    return Group(*frames, _legend(legend), *unseen)


def packages(machine: Machine) -> tuple[Package, ...]:
    """The host's cores by package, NUMA node and last-level cache."""
    found: dict[int | None, dict[int | None, list[Cpu]]] = {}
    for cpu in _cores(machine):
        nodes = found.setdefault(_package_of(machine, cpu), {})
        nodes.setdefault(cpu.node, []).append(cpu)
    return tuple(
        Package(
            package,
            tuple(Node(node, _parts(machine, found[package][node])) for node in _sorted(nodes)),
        )
        for package, nodes in ((package, found[package]) for package in _sorted(found))
    )


def marks(seen: Snapshot) -> tuple[Mark, ...]:
    """The legend: the states that occur, then the owners in the order of their lowest CPUs."""
    online, isolated = seen.machine.online, seen.machine.isolated
    owned = frozenset[int]().union(*(owner.cpus for owner in seen.owners))
    offered = frozenset[int]().union(
        *(one.cpus for of in seen.pools for one in of.devices.values() if one.healthy)
    )
    left = (online & isolated) - owned
    # Nobody is told apart from nobody seen: what looks free may have an owner.
    free = "isolated, free as far as seen" if seen.unseen else "isolated, free"
    states = (
        Mark(HOUSEKEEPING, "dim", "housekeeping", online - isolated - owned),
        Mark(FREE, "bold green", free, left & offered),
        Mark(NOT_OFFERED, "yellow", "isolated, not offered", left - offered),
        Mark(OFFLINE, "bold red", "offline", seen.machine.present - online),
        Mark(DISPUTED, "bold white on red", "owned by several", _disputed(seen.owners)),
    )
    return (*(state for state in states if state.cpus), *_owner_marks(seen.owners))


def labels() -> Iterator[str]:
    """A to Z, then the small letters that stand for no state, then AA, AB and so on."""
    yield from string.ascii_uppercase
    yield from (letter for letter in string.ascii_lowercase if letter not in (FREE, OFFLINE))
    for length in itertools.count(2):
        for letters in itertools.product(string.ascii_uppercase, repeat=length):
            yield "".join(letters)


def _owner_marks(owners: Iterable[Owner]) -> list[Mark]:
    """One label and colour for each container, whatever the number of its resources."""
    looks = zip(labels(), itertools.cycle(_OWNER_STYLES))
    look_of: dict[str, tuple[str, str]] = {}
    found = []
    for owner in sorted(owners, key=_by_cpus):
        name = str(owner.allocation)
        if name not in look_of:
            look_of[name] = next(looks)
        label, style = look_of[name]
        found.append(Mark(label, style, name, owner.cpus, owner.allocation.resource))
    return found


def _by_cpus(owner: Owner) -> tuple[list[int], str, str]:
    return sorted(owner.cpus), str(owner.allocation), owner.allocation.resource


def _disputed(owners: Iterable[Owner]) -> frozenset[int]:
    """CPUs of several containers: some kubelets go on telling of containers that have ended."""
    names: dict[int, set[str]] = {}
    for owner in owners:
        for cpu in owner.cpus:
            names.setdefault(cpu, set()).add(str(owner.allocation))
    return frozenset(cpu for cpu, of in names.items() if len(of) > 1)


def _of_cpu(machine: Machine, legend: Iterable[Mark]) -> dict[int, Mark]:
    """What is drawn for each CPU. That it is offline, or has several owners, comes before all."""
    rank = {OFFLINE: 2, DISPUTED: 1}
    return {
        cpu: mark
        for mark in sorted(legend, key=lambda mark: rank.get(mark.label, 0))
        for cpu in mark.cpus & machine.present
    }


def _cores(machine: Machine) -> list[Cpu]:
    """For each core the CPU that speaks for it: its lowest, of those that are online if any is.

    What an offline CPU knows of its cache is from before it went.
    """
    cores = {cpu.siblings & machine.present for cpu in machine.cpus.values()}
    speakers = (min(core & machine.online or core) for core in cores)
    return [machine.cpus[cpu] for cpu in sorted(speakers)]


def _package_of(machine: Machine, cpu: Cpu) -> int | None:
    """Its package; for an offline CPU that of the others on its NUMA node, if that is only one."""
    if cpu.placed:
        return cpu.package
    others = {one.package for one in machine.cpus.values() if one.placed and one.node == cpu.node}
    return others.pop() if len(others) == 1 else None


def _parts(machine: Machine, cores: Iterable[Cpu]) -> tuple[Part, ...]:
    """The cores of a NUMA node, by last-level cache.

    A cache of a single core is no group to draw, and may be no cache at all: this is also how a
    core looks of which the kernel shows no cache.
    """
    caches: dict[int, list[tuple[int, ...]]] = {}
    unplaced = []
    for cpu in cores:
        core = tuple(sorted(cpu.siblings & machine.present))
        if cpu.placed:
            # The set may be from before another CPU of the cache went: its lowest one will do.
            caches.setdefault(min(cpu.cache & machine.online or cpu.cache), []).append(core)
        else:
            unplaced.append(core)
    shared = sorted(sorted(of) for of in caches.values() if len(of) > 1)
    alone = sorted(core for of in caches.values() if len(of) == 1 for core in of)
    parts = [Part("last-level cache", tuple(of)) for of in shared]
    parts += [Part("", tuple(alone))] if alone else []
    parts += [Part("core not known while offline", tuple(unplaced))] if unplaced else []
    return tuple(parts)


def _sorted(numbers: Iterable[int | None]) -> list[int | None]:
    return sorted(numbers, key=lambda number: (number is None, number))


def _draw(seen: Snapshot, console: Console) -> None:
    try:
        console.print(picture(seen, console.width))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PictureError(f"could not write to standard output: {error.strerror}") from error


def _package(package: Package, of_cpu: Mapping[int, Mark], width: int) -> Panel:
    nodes = (_node(node, of_cpu, width - _FRAMES) for node in package.nodes)
    known = package.number is not None
    return _frame(f"package {package.number}" if known else "package not known", *nodes)


def _node(node: Node, of_cpu: Mapping[int, Mark], room: int) -> RenderableType:
    drawn: list[RenderableType] = []
    for part in node.parts:
        drawn += [Text(part.heading, style="italic", overflow="ellipsis")] if part.heading else []
        drawn.append(_grid(part.cores, of_cpu, room))
    return Group(*drawn) if node.number is None else _frame(f"NUMA node {node.number}", *drawn)


def _frame(title: str, *content: RenderableType) -> Panel:
    return Panel(Group(*content), title=Text(title), title_align="left", expand=False)


def _grid(cores: tuple[tuple[int, ...], ...], of_cpu: Mapping[int, Mark], room: int) -> Text:
    """Cores side by side, the threads of each below each other."""
    label = max(len(mark.label) for mark in of_cpu.values())
    digits = len(str(max(of_cpu)))
    cell = label + 1 + digits
    row = _per_row(len(cores), (room + len(_GAP)) // (cell + len(_GAP)))
    rows = [cores[start : start + row] for start in range(0, len(cores), row)]
    lines = []
    for side_by_side in rows:
        for threads in itertools.zip_longest(*side_by_side):
            cells = (_cell(cpu, of_cpu, label, digits) for cpu in threads)
            lines.append(Text(_GAP).join(cells))
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _per_row(cores: int, fitting: int) -> int:
    """All of them, or a power of two, so that the numbers in a column go up in even steps."""
    return cores if cores <= fitting else 1 << max(fitting, 1).bit_length() - 1


def _cell(cpu: int | None, of_cpu: Mapping[int, Mark], label: int, digits: int) -> Text:
    if cpu is None:  # a core with fewer threads than its neighbour
        return Text(" " * (label + 1 + digits))
    mark = of_cpu[cpu]
    return Text(f"{mark.label:>{label}} {cpu:>{digits}}", style=mark.style)


def _legend(legend: Iterable[Mark]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in ("label", "what", "CPUs", "resource"):
        # What does not wrap keeps its width when the names are too long for all of it.
        table.add_column(overflow="fold", no_wrap=name in ("label", "CPUs"))
    for mark in legend:
        table.add_row(
            Text(mark.label, style=mark.style),
            Text(mark.what),
            Text(_folded(cpulist.render(mark.cpus))),
            Text(mark.resource),
        )
    return table


def _folded(cpus: str) -> str:
    """A CPU list in lines that end between two of its parts."""
    lines = textwrap.wrap(cpus.replace(",", ", "), _LIST_WIDTH, break_on_hyphens=False)
    return "\n".join(line.replace(", ", ",") for line in lines)


def _replace(path: Path, text: str) -> None:
    # What a link leads to is replaced, and not the link: /dev/stdout is one. But in a folder like
    # /tmp, somebody else's may lead to a file that he could not write himself.
    target, temporary = path.parent.resolve() / path.name, None
    try:
        if path.is_symlink():
            if path.lstat().st_uid not in (0, os.geteuid()):
                raise PictureError(
                    f"{path} is a link of another user's: --svg takes the name of a file"
                )
            target = path.resolve()
        if target.exists() and not target.is_file():
            raise PictureError(f"{path} is no ordinary file: --svg takes the name of one")
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            if temporary:
                temporary.unlink()
        raise PictureError(
            f"{path} cannot be written: {error.strerror}: choose another file"
        ) from error
