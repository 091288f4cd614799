"""`isolcpus-dp plan`: shows the plan, writes it, or compares the host with it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.plan import differ, preparation, show, survey, write
from isolcpus_dp.plan.preparation import Source
from isolcpus_dp.plan.wish import Wish, WishError

if TYPE_CHECKING:
    from types import SimpleNamespace

    from isolcpus_dp.host.machine import Machine

__all__ = ["WishError", "run"]


def run(options: SimpleNamespace, machine: Machine | None) -> tuple[str, bool]:
    """What to print, and whether the host is as planned: always, unless it is compared.

    `machine` is one that is not here. Raises WishError, WriteError, MachineError, ConfigError and
    Unseen.
    """
    wanted = Wish(options.housekeeping, options.isolate, options.isolate_type)
    plan = preparation.prepare(_source(options, machine), wanted)
    if options.diff:
        found = differ.differences(plan)
        text = "\n".join(found) or differ.NOTHING
        return show.as_json(plan, differences=found) if options.json else text, not found
    if options.write:
        changes = write.write(plan.files, options.write, plan.former)
        written, removed = list(map(str, changes.written)), list(map(str, changes.removed))
        if options.json:
            return show.as_json(plan, written=written, removed=removed), True
        return show.after_writing(plan, written, removed), True
    return show.as_json(plan) if options.json else show.as_text(plan, _writing(wanted)), True


def _source(options: SimpleNamespace, machine: Machine | None) -> Source:
    """Raises WishError."""
    os_release: Path | None = options.os_release
    if os_release == survey.OS_RELEASE:
        os_release = None
    elif os_release and not os_release.is_file():
        raise WishError(f"--os-release {os_release}: there is no such file")
    source = Source(machine, options.sysfs, os_release, options.config)
    if options.diff and options.write:
        raise WishError("--diff writes nothing: leave out --write")
    if options.diff and (os_release or not source.is_here):
        raise WishError("--diff compares this host: leave out --machine, --sysfs and --os-release")
    return source


def _writing(wanted: Wish) -> str:
    """The command that writes the same wish to the host."""
    wishes = (
        ("--housekeeping", wanted.housekeeping),
        ("--isolate", wanted.isolate),
        ("--isolate-type", wanted.core_type),
    )
    words = [word for name, value in wishes if value for word in (name, str(value))]
    return shlex.join(["isolcpus-dp", "plan", *words, "--write", "/"])
