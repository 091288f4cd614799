"""The beginning and the end of a run of measurements, such as `make bench`.

`begin` records the conditions of the run. `finish RESULTS DOCS` puts its figures into RESULTS,
which has the latest run of each kind, and writes the page and the picture of all of them to DOCS;
`page` does only that. The environment variable FIGURES names the file of the run, and its name is
the kind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from bench.figures import conditions, page, plot, records

PAGE = "measurements.md"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bench.figures")
    parts = parser.add_subparsers(dest="part", required=True, metavar="{begin,finish,page}")
    part = parts.add_parser("begin", help="start a new file, with the conditions of this host")
    part.add_argument("--guest", default="", help="the virtual machine in which the daemons run")
    for word, text in (
        ("finish", "keep the figures of the run, write page and picture, print the run's table"),
        ("page", "write page and picture"),
    ):
        part = parts.add_parser(word, help=text)
        part.add_argument("results", type=Path, help="where the latest run of each kind is kept")
        part.add_argument("docs", type=Path, help="where to write page and picture")
    options = parser.parse_args(arguments)
    try:
        if options.part == "page":
            _write(options.results, options.docs)
            return 0
        name = os.environ.get(records.VARIABLE)
        if not name:
            parser.error(f"set the environment variable {records.VARIABLE} to the file of the run")
        if options.part == "begin":
            records.begin(Path(name), replace(conditions.here(), guest=options.guest))
        else:
            _finish(Path(name), options.results, options.docs)
    except (OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _finish(file: Path, results: Path, docs: Path) -> None:
    run = records.read(file)
    results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, results / file.name)
    _write(results, docs)
    print(*page.table_of(page.section(run)), sep="\n")


def _write(results: Path, docs: Path) -> None:
    """Writes the page and the picture. Raises ValueError if a file is not one of records."""
    runs = page.in_order(records.read(file) for file in results.glob("*.jsonl"))
    (docs / PAGE).write_text(page.render(runs))
    figures = [one for run in runs for one in run.figures]
    (docs / page.PICTURE).write_text(plot.draw(figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
