"""The simulated kubelet as a process, to be run by a unit named kubelet.service.

It logs to stderr, and writes the node status to `node-status.json` in its directory on each change.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import signal
from pathlib import Path

from isolcpus_dp.kubelet import paths
from isolcpus_dp.service.notify import Systemd
from isolcpus_dp.simulator import timing
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.topology import POLICIES


async def _run(options: argparse.Namespace) -> None:
    chance = random.Random(options.seed)
    pods = [
        Pod(name, {options.resource: size}, has_init_container)
        for named, has_init_container in ((options.pod, False), (options.init_pod, True))
        for name, size in named
    ]

    def write_status() -> None:
        temporary = options.kubelet_dir / ".node-status.json"
        temporary.write_text(json.dumps({"pid": os.getpid(), **kubelet.node_status()}))
        temporary.rename(options.kubelet_dir / "node-status.json")

    kubelet = Kubelet(
        options.kubelet_dir,
        options.containers,
        pods,
        _admission(options.admit_after, chance),
        options.topology_manager_policy,
        write_status,
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if options.notify:
        lead = options.notify_lead
        seconds = timing.READY_LEAD.draw(chance) if lead is None else lead / 1000
        Systemd().notify("READY=1")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)
            return
    await kubelet.start()
    write_status()
    await stopped.wait()
    await kubelet.stop()


def _pod(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not (name and size.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=N, such as forwarder=2")
    return name, int(size)


def _admit_after(text: str) -> float | timing.Measured:
    if text in timing.ADMISSION:
        return timing.ADMISSION[text]
    try:
        return float(text)
    except ValueError:
        loads = " or ".join(timing.ADMISSION)
        raise argparse.ArgumentTypeError(f"'{text}' is not milliseconds, {loads}") from None


def _admission(
    admit_after: float | timing.Measured | None, chance: random.Random
) -> timing.Admission:
    if admit_after is None:
        return timing.LATE_ENOUGH
    if isinstance(admit_after, timing.Measured):
        return timing.After(admit_after.draw(chance))
    return timing.After(admit_after / 1000)


def main() -> None:
    """Parses the command line and runs the kubelet until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python3 -m isolcpus_dp.simulator", description="A kubelet's device manager."
    )
    parser.add_argument("--kubelet-dir", type=Path, default=paths.DEFAULT_DIRECTORY)
    parser.add_argument(
        "--containers",
        type=Path,
        default=Path("/run/simulated-containers"),
        help="directory with a file per running container; to be emptied at reboot",
    )
    for option, description in (
        ("--pod", "a static pod with N devices"),
        ("--init-pod", "the same with an init container, which has ended"),
    ):
        parser.add_argument(
            option, action="append", default=[], type=_pod, metavar="NAME=N", help=description
        )
    parser.add_argument("--resource", default="windriver.com/isolcpus")
    parser.add_argument(
        "--admit-after",
        type=_admit_after,
        metavar="MS|idle|busy",
        help="admit static pods this long after the socket, or at a time drawn from those measured"
        " on a real kubelet with this load; default: when the resource has been reported, at the"
        f" latest after {timing.LATE_ENOUGH.at_latest:.0f} s",
    )
    parser.add_argument(
        "--notify",
        action="store_true",
        help="send READY=1 before the socket is bound, as a kubelet with Type=notify does",
    )
    parser.add_argument(
        "--notify-lead",
        type=float,
        metavar="MS",
        help="from READY=1 to the socket; default: drawn from the times of a real kubelet",
    )
    parser.add_argument("--seed", type=int, help="makes the drawn times the same in each run")
    parser.add_argument("--topology-manager-policy", choices=POLICIES, default="none")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_run(parser.parse_args()))
    gc.collect()  # see `show.run`


if __name__ == "__main__":
    main()
