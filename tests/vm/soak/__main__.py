"""Runs the soak: python3 -m tests.vm.soak [--minutes N] [--seed N]. As root.

Exit status: 0 nothing was wrong, 1 something was, 2 the emulation ended the soak early.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.figures import conditions, records
from tests.vm.conftest import REPORTS, keep_traces
from tests.vm.guest import Guest, NeverCameUp
from tests.vm.image import cached
from tests.vm.node import CGROUP, RESOURCE, STATUS
from tests.vm.qemu import Lost
from tests.vm.recipe import FORKY
from tests.vm.soak import installation, journal
from tests.vm.soak.disturbance import ISOLATED, Disturbances, Step, script
from tests.vm.soak.journal import Entry
from tests.vm.soak.manifest import Pod, render
from tests.vm.soak.paths import MANIFESTS, PAUSE
from tests.vm.soak.record import Record, figures, summary
from tests.vm.state import start

# For an emulated machine whose host is busy.
RECOVERY_SECONDS, SETTLE_SECONDS = 120.0, 180.0
QUIET_SECONDS = (1.0, 10.0)
DISTURBED_BEFORE_A_LOOK = 3
# After so many faults, the next ones follow from them.
MOST_WRONG = 10

CHECKS = (
    "kernel-arguments", "foreign-processes", "static-pods", "cpu-quota", "nri", "pin-daemon",
    "versions",
)  # fmt: skip

AUTHOR = "soak-author"
_UNITS = "-u isolcpus-dp -u isolcpus-dp-pin -u isolcpus-dp-kubelet.path -u isolcpus-dp-kubelet"
_FIELDS = "MESSAGE,PRIORITY,EVENT,UNIT,_SYSTEMD_UNIT"


class Soak:
    """A soak in a guest."""

    def __init__(self, guest: Guest, record: Record) -> None:
        self._guest = guest
        self._record = record
        self._chance = random.Random(record.seed)
        self._disturbances = Disturbances(self._chance)
        self._rows = journal.described()

    def run(self, seconds: float) -> None:
        """Disturbs for so many seconds, then compares everything once more."""
        began = time.monotonic()
        installation.start(self._guest, AUTHOR, f"author {self._record.seed}")
        number, early = 0, True
        while self._record.seconds < seconds and len(self._record.wrong) < MOST_WRONG:
            if early and self._record.seconds >= seconds / 2:
                early = False
                self._disturb(self._disturbances.each_configuration())
            self._disturb(self._disturbances.draw(early=early))
            number += 1
            if number % DISTURBED_BEFORE_A_LOOK == 0:
                self._compare(samples=not early)
            time.sleep(self._chance.uniform(*QUIET_SECONDS))
            self._record.seconds = time.monotonic() - began
        self._finish()
        self._record.wrong += self._record.growth()

    def _finish(self) -> None:
        if steps := self._disturbances.restore():
            self._disturb(steps)
        self._compare(samples=True)
        # Nothing must be left of the pods, and none of the isolated CPUs lost.
        tell("all pods are deleted")
        self._guest.run(f"systemctl stop {AUTHOR}; rm -f {MANIFESTS}/*.json")
        self._compare(samples=False)
        tell("one pod gets all isolated CPUs")
        pod = Pod("owner-of-all-guest", str(uuid.UUID(int=1)), "owner", len(ISOLATED))
        self._guest.run(
            f"cd {MANIFESTS} && printf %s {shlex.quote(render(pod, 'guest'))} > .new"
            " && mv .new owner-of-all.json"
        )
        self._compare(samples=False)

    def _disturb(self, steps: list[Step]) -> None:
        names = " and ".join(step.name for step in steps)
        tell(names)
        printed = self._run(steps)
        self._record.disturbances.update(step.name for step in steps)
        if printed[-1] == "late" and self._ends_hang():
            printed += self._run([])
        for line in printed:
            word, _, seconds = line.partition(" ")
            if word == "recovered":
                self._record.recoveries.append((float(seconds), names))
            elif word == "failed":
                self._fault(line)
        if printed[-1] == "late":
            self._fault(f"not recovered in {RECOVERY_SECONDS:.0f} s after {names}")

    def _run(self, steps: list[Step]) -> list[str]:
        """Runs steps and waits for the recovery. Returns what the script has printed."""
        text = script(self._chance, steps, self._recovered(), RECOVERY_SECONDS)
        return self._guest.run(text, timeout=RECOVERY_SECONDS + 180).stdout.splitlines()

    def _ends_hang(self) -> bool:
        """Restarts containerd if it hangs, as docs/faults.md says. Whether it did."""
        if not journal.shows_hung_runtime(self._read_journal()):
            return False
        tell("containerd hangs; restarting it")
        self._record.hangs += 1
        # On this signal, containerd logs what its threads wait for.
        dump = self._guest.run(
            "systemctl kill --kill-whom=main --signal=USR1 containerd; sleep 5; journalctl --sync\n"
            "journalctl --unit=containerd --output=cat --since=-15s",
        ).stdout
        file = REPORTS / f"soak-hang-{self._record.hangs}.threads"
        file.write_text(dump)
        tell(f"what its threads wait for is in {file}")
        self._guest.run("systemctl restart containerd", timeout=180)
        return True

    def _recovered(self) -> str:
        allocatable = f'allocatable.*{RESOURCE}\\": {self._disturbances.allocatable}}}.*devices'
        return (
            f"read -r pid < {CGROUP}/cgroup.procs && grep -q '\"pid\": '$pid, {STATUS}"
            f' && grep -q "{allocatable}" {STATUS}'
            " && systemctl show --property=StatusText isolcpus-dp-pin | grep -q Connected"
        )

    def _compare(self, *, samples: bool) -> None:
        """Compares the books with the containers while no pod comes or goes, and the journal."""
        found = self._look()
        if found["wrong"] and self._ends_hang():
            found = self._look()
        self._record.comparisons += 1
        self._record.pods = found["pods"]
        if found["lost"]:
            tell(f"killed {found['lost']} processes of containers that containerd had lost")
            self._record.lost += found["lost"]
        for sentence in found["wrong"]:
            self._fault(sentence)
        if samples:
            self._record.samples.append(found["samples"])
        self._read_journal()

    def _look(self) -> dict[str, Any]:
        """What `look` prints, when everything has had time to become right."""
        rules = json.dumps(asdict(self._disturbances.rules))
        checks = " ".join(CHECKS) if self._disturbances.is_as_at_first else ""
        look = f"{installation.PYTHON}.look {SETTLE_SECONDS:.0f} '{rules}' {checks}"
        printed = self._guest.run(
            f"touch {PAUSE}; {look}; status=$?; rm {PAUSE}; exit $status",
            timeout=SETTLE_SECONDS + 120,
        ).stdout
        found: dict[str, Any] = json.loads(printed)
        return found

    def _read_journal(self) -> list[Entry]:
        """What the daemons, and systemd about them, have logged since the last time.

        A message that no page describes is a fault.
        """
        read: list[Entry] = []
        for name, condition in (("warnings", "--priority=warning"), ("faults", "--grep=Traceback")):
            printed = self._guest.run(
                f"journalctl --sync; journalctl --boot --cursor-file=/run/soak-{name}"
                f" --output=json --output-fields={_FIELDS} {condition} {_UNITS}",
                check=False,
            ).stdout
            entries = journal.parse(printed)
            read += entries
            for entry in entries:
                self._record.entries[entry.event or journal.kind(entry.message)] += 1
            for sentence in dict.fromkeys(journal.undescribed(entries, self._rows)):
                self._fault(f"the journal says, and no page describes it: {sentence}")
        return read

    def _fault(self, sentence: str) -> None:
        tell(f"WRONG: {sentence}")
        self._record.wrong.append(sentence)


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    tell(f"seed {options.seed}")
    record, found, guest_name = Record(options.seed), conditions.here(), ""
    log = REPORTS / "soak.console"
    with tempfile.TemporaryDirectory() as scratch:
        files = installation.files(Path(scratch))
        with start(cached(FORKY), files=files, log=log) as guest:
            try:
                installation.install(guest)
                guest_name = installation.describe(guest)
                Soak(guest, record).run(60 * options.minutes)
            except (NeverCameUp, Lost) as error:
                record.cut_short = str(error)
            except AssertionError as error:
                record.wrong.append(f"the soak itself failed: {error}")
            journal_file, _ = keep_traces(guest, "soak-end")
            tell(f"the journal is in {journal_file}")
    print(*summary(record), sep="\n")
    if figures_file := os.environ.get(records.VARIABLE):
        records.begin(Path(figures_file), replace(found, guest=guest_name))
        records.hand_over(*figures(record))
    if record.wrong:
        return 1
    return 2 if record.cut_short else 0


if __name__ == "__main__":
    sys.exit(main())
