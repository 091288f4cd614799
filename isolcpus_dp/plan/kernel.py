"""The kernel's command line: what isolates the CPUs, in the boot loader's configuration.

Debian reads /etc/default/grub.d/*.cfg after /etc/default/grub, as shell (grub-mkconfig). EL keeps
the arguments in an entry for each kernel, which grubby changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.host.cmdline import split
from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check import boot

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target
    from isolcpus_dp.plan.survey import Known

_DROP_IN = PurePosixPath("/etc/default/grub.d/90-isolcpus-dp.cfg")
# All files that the part may ever write.
PATHS = (_DROP_IN,)
_HUGE_PAGES = "sys/kernel/mm/transparent_hugepage/enabled"
# GRUB's environment block has 1024 bytes for all variables; on EL, kernelopts or tuned_params can
# be among them. A part of it is for the other arguments of the host.
_GRUBENV_BYTES = 1024
_MUCH = 800

# The shell and grub-mkconfig split the command line at spaces. The sed script loops (label a),
# because two neighbouring arguments share a space. The arguments need no escaping, neither here nor
# for grubby, which edits with sed: they have no other characters than usual arguments, such as
# crashkernel=1G-4G:192M,4G-:256M and root=/dev/sda1.
_SCRIPT = """\
# {mark}
# The last line adds to GRUB_CMDLINE_LINUX_DEFAULT: entries for recovery boot without isolation.
# Earlier arguments of these names are removed: of two isolcpus=, the kernel may ignore one.
isolcpus_dp_others() {{
    printf '%s\\n' "$1" | sed -E ':a; s/(^| )({names})(=[^ ]*)?( |$)/ /; ta'
}}
GRUB_CMDLINE_LINUX="$(isolcpus_dp_others "${{GRUB_CMDLINE_LINUX-}}")"
GRUB_CMDLINE_LINUX_DEFAULT="$(isolcpus_dp_others "${{GRUB_CMDLINE_LINUX_DEFAULT-}}")"
GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {words}"
"""


def part(goal: Goal, target: Target, cmdline: str = "") -> Part:
    """The part; `cmdline` is the command line of the running kernel, if it is that of the host."""
    words = arguments(goal, cmdline)
    files: tuple[File, ...] = ()
    commands: tuple[str, ...] = ()
    notes = list(_notes(words, target, cmdline))
    if target.distribution == "debian":
        text = _SCRIPT.format(mark=MARK, names="|".join(boot.NAMES), words=" ".join(words))
        files = (File(_DROP_IN, text),)
        commands = ("update-grub",)
        notes.append(
            "If another boot loader than GRUB boots this host, add the words after"
            " $GRUB_CMDLINE_LINUX_DEFAULT to its kernel command line instead."
        )
    elif target.distribution == "el":
        commands = (
            f'grubby --update-kernel=ALL --remove-args="{" ".join(boot.NAMES)}"'
            f' --args="{" ".join(words)}"',
        )
        notes.append(
            "grubby changes the rescue entry as well; to boot it without isolation, remove the"
            " arguments from it in the boot menu (key e)."
        )
    else:
        notes.append(
            f"Add to the kernel command line in the boot loader's configuration: {' '.join(words)}"
        )
    return Part(
        "kernel",
        "The kernel keeps its own work, interrupts and all processes off the isolated CPUs.",
        files,
        commands,
        tuple(notes),
    )


def arguments(goal: Goal, cmdline: str = "") -> tuple[str, ...]:
    """The words of the command line. Of transparent huge pages, a quiet setting is kept."""
    words = boot.arguments(goal.isolated, goal.housekeeping)
    name = boot.HUGE_PAGES.partition("=")[0]
    present = [value for word, value in split(cmdline) if word == name][-1:]
    if present and present[0] in boot.QUIET_HUGE_PAGES:
        return (*words[:-1], f"{name}={present[0]}")
    return words


def differences(goal: Goal, known: Known, root: Path) -> Iterator[str]:
    """What of the arguments the running kernel does not have, as sentences. Raises Unseen."""
    yield from lacking(arguments(goal, known.cmdline), files.text(root / "proc/cmdline"))
    isolated = cpulist.parse(files.text(root / "sys/devices/system/cpu/isolated"))
    if isolated & goal.machine.present != goal.isolated:
        names = cpulist.render(isolated) or "(none)"
        yield f"the kernel isolates CPU {names}, and not {cpulist.render(goal.isolated)}"
    chosen = re.search(r"\[(\w+)\]", files.text(root / _HUGE_PAGES))
    if chosen and chosen[1] not in boot.QUIET_HUGE_PAGES:
        yield (
            f"/{_HUGE_PAGES} is {chosen[1]}: if the kernel was booted with {boot.HUGE_PAGES},"
            " remove what sets it later, such as another profile of TuneD"
        )


def lacking(words: Iterable[str], cmdline: str) -> list[str]:
    """What of these arguments a command line lacks, as sentences."""
    found = []
    for word in words:
        name, _, value = word.partition("=")
        present = [one for other, one in split(cmdline) if other == name]
        if not present:
            found.append(f"the kernel command line lacks {word}")
        elif present != [value]:
            shown = " ".join(f"{name}={one}" for one in present)
            found.append(f"the kernel command line has {shown}, and not only {word}")
    return found


def _notes(words: Iterable[str], target: Target, cmdline: str) -> Iterable[str]:
    size = sum(len(word) + 1 for word in words)
    if size > _MUCH:
        yield (
            f"The arguments have {size} bytes: a boot loader that keeps the command line in grubenv"
            f" has room for {_GRUBENV_BYTES} bytes in all, and the kernel of x86 for 2048."
        )
    if target.kernel < (5, 6):
        yield (
            f"Linux {target.kernel[0]}.{target.kernel[1]} may not know the flag managed_irq, and"
            " may then ignore isolcpus=: use Linux 5.6 or newer, or a kernel of EL 8 or newer."
        )
    new = dict(word.split("=", 1) for word in words)
    present = [f"{name}={value}" for name, value in split(cmdline) if new.get(name, value) != value]
    if present:
        advice = (
            "it is replaced"
            if target.distribution != "other"
            else "remove it, because of two isolcpus= the kernel may ignore one"
        )
        yield f"The kernel command line has {' '.join(present)} now: {advice}."
