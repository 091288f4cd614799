"""The command line: parses it, sets up the log, and runs one subcommand.

A subcommand's module is loaded when it is called, and no sooner: the daemon should not pay for
what an operator looks at.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from isolcpus_dp import config, journal, machine

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `isolcpus-dp`; the exit status is returned."""
    options = _parser().parse_args(arguments)
    # gRPC's own log is for those who develop gRPC: it reports every connection that ends.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    journal.set_up("isolcpus-dp", logging.DEBUG if options.verbose else logging.INFO)
    try:
        status: int = options.run(options)
        return status
    except config.ConfigError as error:
        return _fail(str(error), WRONG_USAGE)
    except machine.MachineError as error:
        return _fail(str(error), FAILED)


def _serve(options: argparse.Namespace) -> int:
    # asyncio and shutil take these if they can. A daemon on unix sockets never needs them, and
    # without them it is smaller by 1 MiB of 17.
    sys.modules.update(dict.fromkeys(("ssl", "bz2", "lzma")))  # type: ignore[arg-type]
    from isolcpus_dp import service
    from isolcpus_dp.deviceplugin import EndpointError

    runtime_dir = os.environ.get("RUNTIME_DIRECTORY")
    host = service.Host(
        sysfs=options.sysfs,
        kubelet_dir=options.kubelet_dir,
        runtime_dir=Path(runtime_dir) if runtime_dir else None,
    )
    try:
        service.serve(host, options.config)
    except EndpointError as error:
        return _fail(str(error), FAILED)
    return DONE


def _simulate(options: argparse.Namespace) -> int:
    from isolcpus_dp.simulator import show

    try:
        as_it_should = show.run(options.sysfs, options.config, options.machine, options.isolated)
    except show.UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    except BrokenPipeError:
        # Whoever read it has seen enough. Python would complain of it again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return DONE if as_it_should else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="isolcpus-dp",
        description="Exports the CPUs that the kernel has isolated to Kubernetes.",
    )
    commands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", parents=[_common()], help="run the device plugin")
    serve.set_defaults(run=_serve)
    simulate = commands.add_parser(
        "simulate", parents=[_common()], help="show the device plugin with an embedded kubelet"
    )
    simulate.add_argument(
        "--machine",
        metavar="PxCxT",
        help="a made-up machine: packages x cores x threads; without it, this host",
    )
    simulate.add_argument("--isolated", metavar="LIST", help="the CPUs it has isolated")
    simulate.set_defaults(run=_simulate)
    return parser


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
        default=Path("/var/lib/kubelet"),
        help="default: /var/lib/kubelet",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="log debug messages")
    return common


def _fail(sentence: str, status: int) -> int:
    logging.getLogger("isolcpus_dp").error(sentence, extra=journal.fields(journal.Event.FAILED))
    return status
