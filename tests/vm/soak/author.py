"""Creates and removes pods at random, a process in the guest that outlives kubelet and runtime.

It writes and removes manifests. Like a scheduler, it gives a pod no more devices than are free.

python3 -m tests.vm.soak.author SEED
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.vm.soak import manifest, paths
from tests.vm.soak.containers import node_name
from tests.vm.soak.manifest import KINDS, RESOURCE, Kind, Pod

MOST_PODS, MOST_STARTING, MOST_DEVICES = 9, 2, 4
_WEIGHTS = {"owner": 4, "mixed": 3, "plain": 2, "guaranteed": 1}
_PAUSE_SECONDS = (0.2, 2.5)
_IMPATIENCE = 0.05  # how often a pod is removed while it starts
_LIMIT_MILLIS = 400


class Author:
    """Counts the pods that it has created, by kind, and what has become of them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._node = node_name()
        self._numbers = iter(range(10**9))
        self._created: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._started: set[str] = set()
        self._pods: dict[str, Pod] = {}  # those that it has not removed
        self._ending: dict[str, Pod] = {}  # those that the kubelet still has

    def step(self) -> None:
        """Looks at the pods, and creates or removes one."""
        status = read_status()
        phases = status.get("phases", {})
        self._ending = {name: pod for name, pod in self._ending.items() if name in phases}
        self._started.update(name for name in self._pods if phases.get(name) == "Running")
        for name in [name for name in self._pods if phases.get(name, "").startswith("Failed")]:
            self._remove(name, reason(phases[name]))
        starting = sorted(self._pods.keys() - self._started)
        if len(starting) >= MOST_STARTING:
            if self._chance.random() < _IMPATIENCE:
                self._remove(self._chance.choice(starting), "removed before it ran")
        elif self._started and self._chance.random() < len(self._pods) / MOST_PODS:
            self._remove(self._chance.choice(sorted(self._started)), "ran")
        else:
            self._create(free(status, [*self._pods.values(), *self._ending.values()]))
        self._write()

    def _create(self, devices: int) -> None:
        kind: Kind = self._chance.choices(KINDS, [_WEIGHTS[kind] for kind in KINDS])[0]
        owns = kind in ("owner", "mixed")
        if owns and not devices:
            return
        name = f"{kind}-{next(self._numbers)}-{self._node}"
        size = self._chance.randint(1, min(devices, MOST_DEVICES)) if owns else 0
        millis = self._chance.choice((0, _LIMIT_MILLIS))
        uid = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        self._pods[name] = Pod(name, uid, kind, size, millis)
        write(self._pods[name], self._node)
        self._created[kind] += 1

    def _remove(self, name: str, outcome: str) -> None:
        path_of(name, self._node).unlink(missing_ok=True)
        self._started.discard(name)
        self._ending[name] = self._pods.pop(name)
        self._outcomes[outcome] += 1

    def _write(self) -> None:
        record = {"created": self._created, "outcomes": self._outcomes}
        temporary = paths.CREATED.with_name(f".{paths.CREATED.name}")
        temporary.write_text(json.dumps(record))
        temporary.rename(paths.CREATED)


def path_of(name: str, node: str) -> Path:
    return paths.MANIFESTS / f"{name.removesuffix(f'-{node}')}.json"


def write(pod: Pod, node: str) -> None:
    """Writes the manifest of a pod; the kubelet never sees half of it."""
    path = path_of(pod.name, node)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(manifest.render(pod, node))
    temporary.rename(path)


def read_status() -> dict[str, Any]:
    """The status that the kubelet has written; empty before the first one has."""
    try:
        status: dict[str, Any] = json.loads(paths.STATUS.read_text())
    except FileNotFoundError:
        return {}
    return status


def free(status: dict[str, Any], pods: Iterable[Pod]) -> int:
    """The devices that none of these pods has or will get."""
    allocatable: int = status.get("allocatable", {}).get(RESOURCE, 0)
    return max(0, allocatable - sum(pod.devices for pod in pods))


def reason(phase: str) -> str:
    """Why a pod was not admitted, without the numbers."""
    words = phase.removeprefix("Failed: UnexpectedAdmissionError: ")
    return "not admitted: " + words.partition(" Requested: ")[0].rstrip(".")


def main() -> None:
    chance = random.Random(sys.argv[1])
    author = Author(chance)
    paths.MANIFESTS.mkdir(parents=True, exist_ok=True)
    while True:
        if not paths.PAUSE.exists():
            author.step()
        time.sleep(chance.uniform(*_PAUSE_SECONDS))


if __name__ == "__main__":
    main()
