"""The simulated kubelet as a process, to be run by a unit named kubelet.service.

It logs to stderr, and writes the node status to `node-status.json` in its directory on each change.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
from pathlib import Path

from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.kubelet import ADMIT_SECONDS, Kubelet, Pod
from isolcpus_dp.simulator.topology import POLICIES


async def _run(options: argparse.Namespace) -> None:
    pods = [
        Pod(name, {options.resource: int(size)})
        for name, _, size in (text.partition("=") for text in options.pod)
    ]

    def write_status() -> None:
        temporary = options.kubelet_dir / ".node-status.json"
        temporary.write_text(json.dumps({"pid": os.getpid(), **kubelet.node_status()}))
        temporary.rename(options.kubelet_dir / "node-status.json")

    kubelet = Kubelet(
        options.kubelet_dir,
        options.containers,
        pods,
        options.admit_after / 1000,
        options.topology_manager_policy,
        write_status,
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await kubelet.start()
    write_status()
    await stopped.wait()
    await kubelet.stop()


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
    parser.add_argument(
        "--pod", action="append", default=[], metavar="NAME=N", help="a static pod with N devices"
    )
    parser.add_argument("--resource", default="windriver.com/isolcpus")
    parser.add_argument(
        "--admit-after",
        type=float,
        metavar="MS",
        default=ADMIT_SECONDS * 1000,
        help="delay of the static pods after the socket; default: as measured on a real kubelet",
    )
    parser.add_argument("--topology-manager-policy", choices=POLICIES, default="none")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_run(parser.parse_args()))
    gc.collect()  # see `show.run`


if __name__ == "__main__":
    main()
