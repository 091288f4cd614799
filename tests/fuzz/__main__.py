"""Searches all targets, two at a time, or runs files through one; see --help."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import table

ROOT = Path(__file__).parents[2]
FOUND = Path("build/fuzz")  # what a search finds, below ROOT
# A slow input is a fault as well: the daemons wait for the product's answer.
_OPTIONS = ("-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


def search(name: str, seconds: int, seed: int, temporary: str) -> str:
    """What is wrong with a target: the end of the output and how to repeat it; empty if nothing.

    A seed of 0 is a random one. The files that a target writes are in the directory `temporary`.
    """
    corpus, faults = FOUND / "corpus" / name, FOUND / "faults" / name
    for directory in (corpus, faults):
        (ROOT / directory).mkdir(parents=True, exist_ok=True)
    dictionary = FOUND / f"{name}.words"
    (ROOT / dictionary).write_text("".join(f'"{word}"\n' for word in table.words(name)))
    options = (
        *_OPTIONS,
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-artifact_prefix={faults}/",
        f"-dict={dictionary}",
    )
    # libFuzzer writes new inputs to the first directory.
    seeds = (str(corpus), str(table.DIRECTORY / name))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.search", name, *options, *seeds],
        cwd=ROOT, env={**os.environ, "TMPDIR": temporary},
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    log = ROOT / FOUND / f"{name}.log"
    log.write_text(ended.stdout + ended.stderr)
    if not ended.returncode:
        print(f"{name}: {_runs(ended.stderr)} runs, no fault", flush=True)
        return ""
    return fault(name, ended.stdout, ended.stderr)


def fault(name: str, stdout: str, stderr: str) -> str:
    """What ended a search, and the command that repeats it.

    atheris prints the traceback; libFuzzer says to which file it has written the input.
    """
    errors = [
        line for line in stderr.splitlines() if re.match(r"==|SUMMARY|ALARM|[A-Z]\w+Error", line)
    ]
    written = re.search(r"Test unit written to (\S+)", stderr)
    advice = f"see {FOUND / name}.log"
    if written:
        advice = f"repeat it: build/venv/bin/python -m tests.fuzz {name} {written[1]}"
    return "\n".join([*stdout.splitlines()[-30:], *errors, f"{name}: fault; {advice}"])


def _runs(output: str) -> str:
    lines = [line for line in output.splitlines() if "number_of_executed_units" in line]
    return lines[-1].split()[-1] if lines else "no"


def _search_all(seconds: int, seed: int) -> int:
    # Some targets write files in each run, which is several times as fast in memory.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as temporary, ThreadPoolExecutor(2) as pool:
        faults = list(
            filter(None, pool.map(lambda name: search(name, seconds, seed, temporary), table.NAMES))
        )
    print("\n\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


def _repeat(name: str, files: list[Path]) -> int:
    """Runs files through a target; a fault ends with its traceback."""
    check = table.load(name)
    for file in files:
        print(f"{file}: {'accepted' if check(file.read_bytes()) else 'refused'}", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=table.NAMES, help="all, if it is missing")
    parser.add_argument("files", nargs="*", type=Path, help="run these files, without a search")
    parser.add_argument("--seconds", type=int, default=600, help="for each target; default: 600")
    parser.add_argument("--seed", type=int, default=0, help="of the search; default: a random one")
    given = parser.parse_args()
    if not given.target:
        sys.exit(_search_all(given.seconds, given.seed))
    sys.exit(_repeat(given.target, given.files or table.corpus(given.target)))
