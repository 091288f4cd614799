"""The command line: parses it, sets up the log, and runs one subcommand.

A subcommand's module is imported when the subcommand runs, so that the daemons do not load the
reports.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from isolcpus_dp import config
from isolcpus_dp.host import machine
from isolcpus_dp.service import events, process, reload

DONE, FAILED, WRONG_USAGE = 0, 1, 2


class _OutputError(Exception):
    """The output cannot be written; one sentence."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs `isolcpus-dp` and returns its exit status."""
    reload.hold()  # a SIGHUP must not end a daemon that is starting
    options = _parse(words)
    tests = getattr(options, "test", False)
    is_daemon = options.command in _DAEMONS and not tests
    if not is_daemon:
        reload.release()
    else:
        process.disable_huge_pages()
        process.unload("isolcpus_dp.arguments", "argparse", "gettext")
        process.UNNEEDED.block()
    # gRPC logs every connection that ends, which is of no use to an operator.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Every fork here is followed by an exec at once; gRPC's fork handlers can only fail.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    events.set_up("isolcpus-dp", _level(options))
    fail = _fail_daemon if is_daemon else _fail_test if tests else _fail
    try:
        return (_test if tests else _COMMANDS[options.command])(options)
    except config.ConfigError as error:
        return fail(str(error), WRONG_USAGE)
    except machine.MachineError as error:
        return fail(str(error), FAILED)
    except BrokenPipeError:
        # The reader of a pipe, such as head, has ended.
        _redirect_stdout_to_null()
        return FAILED
    except _OutputError as error:
        _redirect_stdout_to_null()
        return fail(str(error), FAILED)
    except KeyboardInterrupt:
        return FAILED


def _parse(words: Sequence[str] | None) -> SimpleNamespace:
    from isolcpus_dp import arguments

    # A copy: argparse.Namespace would keep argparse in memory.
    return SimpleNamespace(**vars(arguments.parse(words)))


def _level(options: SimpleNamespace) -> int:
    """Only the daemons have debug messages."""
    return logging.DEBUG if getattr(options, "verbose", False) else logging.INFO


def _serve(options: SimpleNamespace) -> int:
    from isolcpus_dp.kubelet import daemon, standby

    host = daemon.Host(
        sysfs=options.sysfs,
        kubelet_dir=options.kubelet_dir,
        runtime_dir=_runtime_dir(),
    )
    try:
        standby.serve(host, options.config)
    except standby.SandboxError as error:
        return _fail_daemon(str(error), FAILED)
    return process.exit_now(DONE)


def _runtime_dir() -> Path | None:
    """The directory that systemd provides; None without one."""
    name = os.environ.get("RUNTIME_DIRECTORY")
    return Path(name) if name else None


def _pin(options: SimpleNamespace) -> int:
    from isolcpus_dp.nri import daemon

    try:
        daemon.serve(daemon.Host(options.sysfs, options.nri_socket, _runtime_dir()), options.config)
    except OSError as error:
        return _fail_daemon(process.explain(error), FAILED)
    return process.exit_now(DONE)


def _test(options: SimpleNamespace) -> int:
    """Reads what a daemon reads when it starts. Raises MachineError and ConfigError."""
    from isolcpus_dp.kubelet import paths

    settings = config.load(options.config, machine.read(options.sysfs).last)
    if options.command == "serve":
        for pool in settings.pools:
            paths.endpoint(options.kubelet_dir, pool.endpoint)
    return DONE


def _status(options: SimpleNamespace) -> int:
    from isolcpus_dp.report import snapshot, status

    found = status.look(snapshot.take(options.sysfs, options.config, options.kubelet_dir))
    _print(status.as_json(found) if options.json else status.as_text(found))
    return DONE if found.well else FAILED


def _check(options: SimpleNamespace) -> int:
    from isolcpus_dp.kubelet import root
    from isolcpus_dp.report import snapshot
    from isolcpus_dp.report.check import finding, host, show, table

    seen = snapshot.take(options.sysfs, options.config, options.kubelet_dir)
    roots = host.Roots(
        sysfs=options.sysfs,
        kubelet_dir=options.kubelet_dir,
        kubelet_root=root.given(options.kubelet_dir, seen.config.kubelet.root),
        nri_socket=options.nri_socket,
    )
    try:
        results = table.run(host.Host(roots, seen, options.interval), options.only)
    except table.UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    _print(show.as_json(results) if options.json else show.for_stdout(results))
    return DONE if table.worst(results) is finding.Verdict.OK else FAILED


def _plan(options: SimpleNamespace) -> int:
    from isolcpus_dp.host import files
    from isolcpus_dp.plan import command, write
    from isolcpus_dp.simulator import machine as simulated

    try:
        shape = simulated.parse_shape(options.machine) if options.machine else None
    except ValueError as error:
        return _fail(f"--machine {error}", WRONG_USAGE)
    try:
        text, is_as_planned = command.run(options, simulated.described(shape) if shape else None)
    except command.WishError as error:
        return _fail(str(error), WRONG_USAGE)
    except (write.WriteError, files.Unseen) as error:
        return _fail(str(error), FAILED)
    _print(text)
    return DONE if is_as_planned else FAILED


def _measure(options: SimpleNamespace) -> int:
    from isolcpus_dp.measure import command

    try:
        output = command.run(options)
    except command.RequestError as error:
        return _fail(str(error), WRONG_USAGE)
    except command.CommandError as error:
        return _fail(str(error), FAILED)
    _print(output.text)
    for failure in output.failures:
        _fail(failure, FAILED)
    return FAILED if output.failures else DONE


def _simulate(options: SimpleNamespace) -> int:
    from isolcpus_dp.simulator import show

    # When its terminal is closed, it must end its daemon, which does not end on SIGHUP.
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        succeeded = show.run(options.sysfs, options.config, options.machine, options.isolated)
    except show.UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    return DONE if succeeded else FAILED


def _map(options: SimpleNamespace) -> int:
    try:
        return _draw_map(options)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _fail("rich, which draws the map, is missing: install python3-rich", FAILED)
    except KeyboardInterrupt:
        if options.watch:  # the usual way to end it
            return DONE
        raise


def _draw_map(options: SimpleNamespace) -> int:
    from isolcpus_dp.report.map import PictureError

    host = (options.sysfs, options.config, options.kubelet_dir)
    try:
        if options.svg:
            from isolcpus_dp.report.map import svg

            svg.write(*host, options.svg)
            return DONE
        from isolcpus_dp.report.map import draw

        if options.watch:
            draw.follow(*host)
        else:
            draw.show(*host)
    except PictureError as error:
        raise _OutputError(str(error)) from error
    return DONE


def _print(text: str) -> None:
    """Prints and flushes, so that errors are raised here. Raises BrokenPipeError, _OutputError."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputError(f"could not write to standard output: {error.strerror}") from error


def _redirect_stdout_to_null() -> None:
    # Otherwise Python flushes at exit and reports the same error again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


def _fail_daemon(sentence: str, status: int) -> int:
    """As _fail; in the journal, the entry has the fields of the event."""
    events.emit(logging.getLogger("isolcpus_dp"), events.Event.FAILED, "%s", sentence)
    return status


def _fail_test(sentence: str, status: int) -> int:
    """As _fail; in the journal, where the test is a part of a reload, it is that event."""
    events.emit(logging.getLogger("isolcpus_dp"), events.Event.RELOAD_FAILED, "%s", sentence)
    return status


_DAEMONS = ("serve", "pin")
_COMMANDS = {
    "serve": _serve,
    "pin": _pin,
    "status": _status,
    "map": _map,
    "check": _check,
    "plan": _plan,
    "measure": _measure,
    "simulate": _simulate,
}
