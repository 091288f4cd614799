"""Draws a host in the terminal, with rich: once, or after every change."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isolcpus_dp.host import cpulist
from isolcpus_dp.report import snapshot
from isolcpus_dp.report.map import PictureError, model
from isolcpus_dp.report.map.text import clean

if TYPE_CHECKING:
    from isolcpus_dp.report.map.model import Mark, Node, Package
    from isolcpus_dp.report.snapshot import Snapshot

_GAP = "  "  # between cores
_FRAMES = 8  # columns of the frames of a package and of a NUMA node in it
# Names need most of the width of the legend, so long CPU lists are folded.
_LIST_WIDTH = 24
_STATE_STYLES = {
    model.HOUSEKEEPING: "dim",
    model.FREE: "bold green",
    model.NOT_OFFERED: "yellow",
    model.OFFLINE: "bold red",
    model.DISPUTED: "bold white on red",
}


def show(sysfs: Path, config_file: Path | None, kubelet_dir: Path) -> None:
    """Draws the host in the terminal. Raises PictureError, and what snapshot.take() raises."""
    seen = snapshot.take(sysfs, config_file, kubelet_dir)
    _draw(seen, Console())


def follow(sysfs: Path, config_file: Path | None, kubelet_dir: Path) -> None:
    """Draws the host in the terminal after every change, until KeyboardInterrupt.

    Raises PictureError, and what snapshot.take() raises.
    """
    # Imported here because it takes 20 ms, and a single picture does not need them.
    import asyncio

    from isolcpus_dp.report import watch

    console = Console()

    def redraw(seen: Snapshot) -> None:
        # The alternate screen is not used, so that a long picture can be scrolled, and the last one
        # remains visible.
        console.clear()
        _draw(seen, console)

    asyncio.run(watch.follow(sysfs, config_file, kubelet_dir, redraw))


def picture(seen: Snapshot, width: int) -> RenderableType:
    """The host in frames, the legend, and missing data; no line is wider than `width`."""
    legend = model.marks(seen)
    mark_by_cpu = model.mark_by_cpu(seen.machine, legend)
    frames = [_package(one, mark_by_cpu, width) for one in model.packages(seen.machine)]
    unseen = [Text(f"not seen: {clean(sentence)}", overflow="fold") for sentence in seen.unseen]
    return Group(*frames, _legend(legend), *unseen)


def style(mark: Mark) -> str:
    """The style of a mark's label and of its CPUs."""
    return _STATE_STYLES[mark.label] if not mark.colour else f"black on {mark.colour}"


def _draw(seen: Snapshot, console: Console) -> None:
    try:
        console.print(picture(seen, console.width))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PictureError(f"could not write to standard output: {error.strerror}") from error


def _package(package: Package, mark_by_cpu: Mapping[int, Mark], width: int) -> Panel:
    nodes = (_node(node, mark_by_cpu, width - _FRAMES) for node in package.nodes)
    return _frame(package.heading, *nodes)


def _node(node: Node, mark_by_cpu: Mapping[int, Mark], room: int) -> RenderableType:
    drawn: list[RenderableType] = []
    for part in node.parts:
        drawn += [Text(part.heading, style="italic", overflow="ellipsis")] if part.heading else []
        drawn.append(_grid(part.cores, mark_by_cpu, room))
    return _frame(node.heading, *drawn) if node.heading else Group(*drawn)


def _frame(title: str, *content: RenderableType) -> Panel:
    return Panel(Group(*content), title=Text(title), title_align="left", expand=False)


def _grid(cores: tuple[tuple[int, ...], ...], mark_by_cpu: Mapping[int, Mark], room: int) -> Text:
    """Cores side by side, each with its threads in a column."""
    label = max(len(mark.label) for mark in mark_by_cpu.values())
    digits = len(str(max(mark_by_cpu)))
    cell = label + 1 + digits
    row = _per_row(len(cores), (room + len(_GAP)) // (cell + len(_GAP)))
    rows = [cores[start : start + row] for start in range(0, len(cores), row)]
    lines = []
    for side_by_side in rows:
        for threads in itertools.zip_longest(*side_by_side):
            cells = (_cell(cpu, mark_by_cpu, label, digits) for cpu in threads)
            lines.append(Text(_GAP).join(cells))
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _per_row(cores: int, fitting: int) -> int:
    """All cores, or a power of two, so that CPU numbers increase evenly in a column."""
    return cores if cores <= fitting else 1 << max(fitting, 1).bit_length() - 1


def _cell(cpu: int | None, mark_by_cpu: Mapping[int, Mark], label: int, digits: int) -> Text:
    if cpu is None:  # a core with fewer threads than its neighbour
        return Text(" " * (label + 1 + digits))
    mark = mark_by_cpu[cpu]
    return Text(f"{mark.label:>{label}} {cpu:>{digits}}", style=style(mark))


def _legend(legend: Iterable[Mark]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in ("label", "what", "CPUs", "resource"):
        # Columns without wrapping keep their width when names are too long for the terminal.
        table.add_column(overflow="fold", no_wrap=name in ("label", "CPUs"))
    for mark in legend:
        table.add_row(
            Text(mark.label, style=style(mark)),
            Text(clean(mark.what)),
            Text(_folded(cpulist.render(mark.cpus))),
            Text(clean(mark.resource)),
        )
    return table


def _folded(cpus: str) -> str:
    """A CPU list in lines that end after a comma."""
    lines = textwrap.wrap(cpus.replace(",", ", "), _LIST_WIDTH, break_on_hyphens=False)
    return "\n".join(line.replace(", ", ",") for line in lines)
