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
from typing import NoReturn

from isolcpus_dp import config, journal, machine

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `isolcpus-dp`; the exit status is returned."""
    options = parser().parse_args(arguments)
    # gRPC's own log is for those who develop gRPC: it reports every connection that ends.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Who forks here starts another program at once; what gRPC does in between can only go wrong.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    journal.set_up("isolcpus-dp", logging.DEBUG if options.verbose else logging.INFO)
    try:
        status: int = options.run(options)
        return status
    except config.ConfigError as error:
        return _fail(str(error), WRONG_USAGE)
    except machine.MachineError as error:
        return _fail(str(error), FAILED)


def _serve(options: argparse.Namespace) -> int:
    _load_less()
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
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        return _fail(
            "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client", FAILED
        )
    except EndpointError as error:
        return _fail(str(error), FAILED)
    return _end_at_once()


def _pin(options: argparse.Namespace) -> int:
    _load_less()
    from isolcpus_dp.nri import service

    try:
        service.serve(service.Host(options.sysfs, options.nri_socket), options.config)
    except service.HostError as error:
        return _fail(str(error), FAILED)
    return _end_at_once()


def _load_less() -> None:
    """Keeps modules out that asyncio and shutil take if they can.

    A daemon on unix sockets never needs them, and is smaller by 1 MiB of 17 without them.
    """
    sys.modules.update(dict.fromkeys(("ssl", "bz2", "lzma")))  # type: ignore[arg-type]


def _end_at_once() -> NoReturn:
    # systemd starts the next daemon when this one has ended, and until then the node has none.
    # For Python to take apart all that it has loaded takes 30 ms.
    logging.shutdown()
    os._exit(DONE)


def _status(options: argparse.Namespace) -> int:
    from isolcpus_dp.report import snapshot, status

    found = status.look(snapshot.take(options.sysfs, options.config, options.kubelet_dir))
    print(status.as_json(found) if options.json else status.as_text(found))
    return DONE if found.well else FAILED


def _check(options: argparse.Namespace) -> int:
    from isolcpus_dp.report import snapshot
    from isolcpus_dp.report.check import finding, host, show, table

    roots = host.Roots(
        sysfs=options.sysfs, kubelet_dir=options.kubelet_dir, nri_socket=options.nri_socket
    )
    seen = snapshot.take(options.sysfs, options.config, options.kubelet_dir)
    try:
        results = table.run(host.Host(roots, seen, options.interval), options.only)
    except table.UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    print(show.as_json(results) if options.json else show.for_stdout(results))
    return DONE if table.worst(results) is finding.Verdict.OK else FAILED


def _simulate(options: argparse.Namespace) -> int:
    from isolcpus_dp.simulator import show

    try:
        as_it_should = show.run(options.sysfs, options.config, options.machine, options.isolated)
    except show.UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    except BrokenPipeError:
        return _end_unread()
    return DONE if as_it_should else FAILED


def _map(options: argparse.Namespace) -> int:
    try:
        return _draw_map(options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _fail("rich, which draws the map, is missing: install python3-rich", FAILED)
    except BrokenPipeError:
        return _end_unread()
    except KeyboardInterrupt:
        # It is how an operator ends --watch, and no failure.
        return DONE if options.watch else FAILED


def _draw_map(options: argparse.Namespace) -> int:
    from isolcpus_dp.report import map as report

    host = (options.sysfs, options.config, options.kubelet_dir)
    try:
        if options.watch:
            report.follow(*host)
        elif options.svg:
            report.write(*host, options.svg)
        else:
            report.show(*host)
    except report.PictureError as error:
        return _fail(str(error), FAILED)
    return DONE


def _end_unread() -> int:
    # Whoever read it has seen enough. Python would complain of it again when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="isolcpus-dp",
        description="Exports the CPUs that the kernel has isolated to Kubernetes.",
    )
    commands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", parents=[_common()], help="run the device plugin")
    serve.set_defaults(run=_serve)
    pin = commands.add_parser(
        "pin", parents=[_common()], help="run the NRI plugin that pins containers to their CPUs"
    )
    _add_nri_socket(pin)
    pin.set_defaults(run=_pin)
    status = commands.add_parser(
        "status", parents=[_common()], help="show CPUs, their owners and the daemons"
    )
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    drawn = commands.add_parser(
        "map", parents=[_common()], help="draw the host: who has which CPUs"
    )
    way = drawn.add_mutually_exclusive_group()
    way.add_argument(
        "--svg", type=Path, metavar="FILE", help="write the picture to a file, for a ticket or wiki"
    )
    way.add_argument("--watch", action="store_true", help="draw it again whenever it changes")
    drawn.set_defaults(run=_map)
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
    check.set_defaults(run=_check)
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


def _add_nri_socket(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--nri-socket",
        type=Path,
        metavar="PATH",
        default=Path("/var/run/nri/nri.sock"),
        help="the container runtime's; default: /var/run/nri/nri.sock",
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
        default=Path("/var/lib/kubelet"),
        help="default: /var/lib/kubelet",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="log debug messages")
    return common


def _fail(sentence: str, status: int) -> int:
    logging.getLogger("isolcpus_dp").error(sentence, extra=journal.fields(journal.Event.FAILED))
    return status
