"""What may be said on the command line; what comes of it is cli's."""

from __future__ import annotations

import argparse
from pathlib import Path

from isolcpus_dp import __version__, config
from isolcpus_dp.kubelet import paths
from isolcpus_dp.nri.paths import DEFAULT_SOCKET


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="isolcpus-dp",
        description="Exports the CPUs that the kernel has isolated to Kubernetes.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", dest="command", required=True
    )
    commands.add_parser("serve", parents=[_common()], help="run the device plugin")
    pin = commands.add_parser(
        "pin", parents=[_common()], help="run the NRI plugin that pins containers to their CPUs"
    )
    _add_nri_socket(pin)
    status = commands.add_parser(
        "status", parents=[_common()], help="show CPUs, their owners and the daemons"
    )
    status.add_argument("--json", action="store_true", help="for programs")
    drawn = commands.add_parser(
        "map", parents=[_common()], help="draw the host: who has which CPUs"
    )
    way = drawn.add_mutually_exclusive_group()
    way.add_argument(
        "--svg", type=Path, metavar="FILE", help="write the picture to a file, for a ticket or wiki"
    )
    way.add_argument("--watch", action="store_true", help="draw it again whenever it changes")
    check = commands.add_parser(
        "check", parents=[_common()], help="check whether this host's isolation is real"
    )
    check.add_argument(
        "--only",
        action="append",
        metavar="ID",
        default=[],
        help="run this check only; may be given more than once",
    )
    check.add_argument("--json", action="store_true", help="for programs")
    check.add_argument(
        "--interval",
        type=_seconds,
        metavar="SECONDS",
        default=1.0,
        help="how long to count interrupts, 0 for not at all; default: 1",
    )
    _add_nri_socket(check)
    simulate = commands.add_parser(
        "simulate", parents=[_common()], help="show the device plugin with an embedded kubelet"
    )
    simulate.add_argument(
        "--machine",
        metavar="PxCxT",
        help="a made-up machine: packages x cores x threads; without it, this host",
    )
    simulate.add_argument("--isolated", metavar="LIST", help="the CPUs it has isolated")
    return parser


def _add_nri_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--nri-socket",
        type=Path,
        metavar="PATH",
        default=DEFAULT_SOCKET,
        help=f"the container runtime's; default: {DEFAULT_SOCKET}",
    )


def _seconds(text: str) -> float:
    """Raises ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from 0 to 3600")
    return seconds


def _common() -> argparse.ArgumentParser:
    """What every subcommand takes."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the configuration (default: {config.DEFAULT_FILE}, if there is one)",
    )
    common.add_argument(
        "--sysfs", type=Path, metavar="DIR", default=Path("/sys"), help="default: /sys"
    )
    common.add_argument(
        "--kubelet-dir",
        type=Path,
        metavar="DIR",
        default=paths.DEFAULT_DIRECTORY,
        help=f"default: {paths.DEFAULT_DIRECTORY}",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="log debug messages")
    return common
