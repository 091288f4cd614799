"""service/worker: how a worker ends, and what its parent learns."""

from __future__ import annotations

import subprocess
import sys

# A process of its own: a fork of the tests' process would have their threads' locks.
PARENT = """
import os, time
from isolcpus_dp.service import worker

def end_of(work):
    parent = os.getpid()
    try:
        started = worker.fork(work)
    finally:
        if os.getpid() != parent:
            print("the worker returned from fork()", flush=True)
    while not (end := started.poll()):
        time.sleep(0.01)
    return end
"""


def run_parent(code: str) -> str:
    """Runs code that may call end_of(work) in a new process; its output."""
    ended = subprocess.run(
        [sys.executable, "-c", PARENT + code], capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
    return ended.stdout


def test_parent_learns_what_the_worker_told() -> None:
    code = "end = end_of(lambda tell: (tell('one'), tell('two')))\nprint(end.status, *end.told)"
    assert run_parent(code) == "0 one two\n"


def test_exception_in_a_worker_is_told_as_traceback() -> None:
    code = "end = end_of(lambda tell: 1 / 0)\nprint(end.status, end.told[0], end.told[-1])"
    assert run_parent(code) == (
        "1 Traceback (most recent call last): ZeroDivisionError: division by zero\n"
    )


def test_killed_worker_has_told_its_lines() -> None:
    code = "end = end_of(lambda tell: (tell('one'), os.kill(os.getpid(), 9)))\nprint(*end.told)"
    assert run_parent(f"{code}\nprint(end.status)") == "one\n-9\n"


def test_worker_that_tells_too_much_still_ends_as_worker() -> None:
    """The parent reads only when it has ended; until then the lines must fit into the pipe."""
    code = "end = end_of(lambda tell: [tell('x' * 99) for _ in range(2000)])\nprint(end.status)"
    assert run_parent(f"{code}\nprint(set(map(len, end.told)))") == "0\n{99}\n"


def test_exception_after_a_full_pipe_ends_the_worker() -> None:
    work = "lambda tell: ([tell('x' * 99) for _ in range(2000)], 1 / 0)"
    assert run_parent(f"print(end_of({work}).status)") == "1\n"
