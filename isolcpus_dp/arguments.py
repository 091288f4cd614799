"""The command line as data: the subcommands and their options. What they do is in `cli`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from isolcpus_dp import __version__, config
from isolcpus_dp.kubelet import paths
from isolcpus_dp.nri.paths import DEFAULT_SOCKET


class Option(NamedTuple):
    """An option of a subcommand. Without `metavar` it is a flag."""

    name: str
    help: str
    metavar: str | None = None
    convert: Callable[[str], object] = str
    default: object = None
    short: str | None = None
    repeatable: bool = False


class Subcommand(NamedTuple):
    """A subcommand and every option that it uses."""

    name: str
    help: str
    options: tuple[Option, ...]
    # Names of options of which one at most can be given.
    exclusive: tuple[str, ...] = ()


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options that were given, with the subcommand's name as `command`.

    Ends the process with exit status 2 and a sentence on stderr if they are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="isolcpus-dp",
        description="Makes the CPUs that the kernel has isolated available to Kubernetes.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", dest="command", required=True
    )
    parsers = {}
    for subcommand in SUBCOMMANDS:
        parsers[subcommand.name] = commands.add_parser(
            subcommand.name,
            help=subcommand.help,
            description=f"{subcommand.help[0].upper()}{subcommand.help[1:]}.",
            allow_abbrev=False,
        )
        _add_options(parsers[subcommand.name], subcommand)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        parsers[options.command].error(_rejection(options.command, unknown[0].partition("=")[0]))
    return options


def _add_options(parser: argparse.ArgumentParser, subcommand: Subcommand) -> None:
    # argparse cannot print an empty group.
    exclusive = parser.add_mutually_exclusive_group() if subcommand.exclusive else parser
    for option in subcommand.options:
        target = exclusive if option.name in subcommand.exclusive else parser
        names = [option.short, option.name] if option.short else [option.name]
        if option.metavar is None:
            target.add_argument(*names, action="store_true", help=option.help)
        else:
            target.add_argument(
                *names,
                action="append" if option.repeatable else "store",
                type=option.convert,
                metavar=option.metavar,
                default=option.default,
                help=option.help,
            )


def _rejection(command: str, word: str) -> str:
    """Why `word` cannot be given to the subcommand."""
    users = [
        subcommand.name
        for subcommand in SUBCOMMANDS
        if any(word in (option.name, option.short) for option in subcommand.options)
    ]
    if command in users:
        return f"{word} must come after {command}"
    elsewhere = f", which is an option of {', '.join(users)}" if users else ""
    return f"{command} does not take {word}{elsewhere}"


def _seconds(text: str) -> float:
    """Raises ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 0 to 3600")
    return seconds


def _cores(text: str) -> int:
    """Raises ArgumentTypeError."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of cores from 1 to 9999")
    return number


def _core_type(text: str) -> str:
    """Raises ArgumentTypeError."""
    if text not in ("performance", "efficient"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither performance nor efficient")
    return text


def _duration(text: str) -> float:
    """Raises ArgumentTypeError."""
    from isolcpus_dp.measure import quantity  # the daemons do not load it

    try:
        return quantity.seconds(text)
    except quantity.QuantityError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _length(text: str) -> float:
    """Raises ArgumentTypeError."""
    from isolcpus_dp.measure import quantity

    try:
        return quantity.microseconds(text)
    except quantity.QuantityError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


_CONFIG = Option(
    "--config",
    f"the configuration file; default: {config.DEFAULT_FILE}, if it exists",
    "FILE",
    Path,
)
_SYSFS = Option(
    "--sysfs", "the directory that describes the CPUs; default: /sys", "DIR", Path, Path("/sys")
)
_MACHINE = Option(
    "--machine",
    "simulate a machine of packages x cores x threads; default: use this host",
    "PxCxT",
)
_KUBELET_DIR = Option(
    "--kubelet-dir",
    f"the kubelet's directory of device-plugins/; default: {paths.DEFAULT_DIRECTORY}",
    "DIR",
    Path,
    paths.DEFAULT_DIRECTORY,
)
_NRI_SOCKET = Option(
    "--nri-socket",
    f"the container runtime's socket for NRI plugins; default: {DEFAULT_SOCKET}",
    "PATH",
    Path,
    DEFAULT_SOCKET,
)
_TEST = Option("--test", "only test the configuration: exit status 0 if it is right, 2 if not")
_VERBOSE = Option("--verbose", "also log debug messages", short="-v")
_JSON = Option("--json", "print machine-readable output")

SUBCOMMANDS = (
    Subcommand("serve", "run the device plugin", (_TEST, _CONFIG, _SYSFS, _KUBELET_DIR, _VERBOSE)),
    Subcommand(
        "pin",
        "run the NRI plugin that pins containers to their CPUs",
        (_TEST, _NRI_SOCKET, _CONFIG, _SYSFS, _VERBOSE),
    ),
    Subcommand(
        "status",
        "show the CPUs, their owners and the state of the daemons",
        (_JSON, _CONFIG, _SYSFS, _KUBELET_DIR),
    ),
    Subcommand(
        "map",
        "draw the host's CPUs and their owners",
        (
            Option("--svg", "write the picture to an SVG file", "FILE", Path),
            Option("--watch", "draw again after every change"),
            _CONFIG,
            _SYSFS,
            _KUBELET_DIR,
        ),
        exclusive=("--svg", "--watch"),
    ),
    Subcommand(
        "check",
        "check that this host's CPUs are really isolated",
        (
            Option(
                "--only", "run only this check; can be repeated", "ID", default=[], repeatable=True
            ),
            _JSON,
            Option(
                "--interval",
                "how long to count interrupts, 0 to skip counting; default: 1",
                "SECONDS",
                _seconds,
                1.0,
            ),
            _NRI_SOCKET,
            _CONFIG,
            _SYSFS,
            _KUBELET_DIR,
        ),
    ),
    Subcommand(
        "plan",
        "show or write the configuration with which a host isolates CPUs",
        (
            Option(
                "--housekeeping",
                "how many cores of each NUMA node stay for all else, CPU 0's always among them;"
                " default: 1",
                "N",
                _cores,
            ),
            Option("--isolate", "isolate these CPUs instead, which must be whole cores", "LIST"),
            Option(
                "--isolate-type",
                "isolate only cores of this type, performance or efficient, of a hybrid machine",
                "TYPE",
                _core_type,
            ),
            Option(
                "--write",
                "write the files below this directory; / is the host itself",
                "DIR",
                Path,
            ),
            Option("--diff", "compare this host with the plan: exit status 1 if it differs"),
            _JSON,
            Option(
                "--os-release",
                "plan for the distribution that this file names; default: /etc/os-release",
                "FILE",
                Path,
                Path("/etc/os-release"),
            ),
            _MACHINE,
            _CONFIG,
            _SYSFS,
        ),
        exclusive=("--machine", "--sysfs"),
    ),
    Subcommand(
        "measure",
        "measure how long isolated CPUs are interrupted, and by what",
        (
            Option("--cpus", "measure these CPUs; default: all free isolated CPUs", "LIST"),
            Option(
                "--duration",
                "how long to measure, such as 500ms, 60s or 5m; a number is seconds; default: 60",
                "TIME",
                _duration,
                60.0,
            ),
            Option(
                "--limit",
                "exit status 1 if an interruption is longer, such as 20us or 0.5ms",
                "TIME",
                _length,
            ),
            _JSON,
            Option("--svg", "also write the histograms to an SVG file", "FILE", Path),
            Option(
                "--compare", "compare with an earlier measurement, made with --json", "FILE", Path
            ),
            Option("--watch-owned", "also count what happens on owned CPUs, without any load"),
            _CONFIG,
            _SYSFS,
            _KUBELET_DIR,
        ),
    ),
    Subcommand(
        "simulate",
        "show the device plugin at work with an embedded kubelet",
        (
            _MACHINE,
            _SYSFS,
            Option("--isolated", "the isolated CPUs of the simulated machine", "LIST"),
            _CONFIG,
        ),
        exclusive=("--machine", "--sysfs"),
    ),
)
