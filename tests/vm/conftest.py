"""One guest per test module; the journal and the console of a guest are saved on a failure."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .extent import FULL, in_full_run
from .guest import Guest, NeverCameUp
from .image import Image, cached
from .qemu import PANICKED, Lost
from .recipe import BOOKWORM, FORKY, TRIXIE, Recipe
from .state import ISOLATED, start

REPORTS = Path(__file__).parents[2] / "build" / "vm"
# Lists the modules that a panic interrupted; tools/test-vm runs them again.
CUT_SHORT = REPORTS / "cut-short"
EXIT_CUT_SHORT = 10  # not used by pytest itself


# The parameters that stand for a guest of its own: the suite, or the Type= of the kubelet's unit.
GUESTS = [*(recipe.suite for recipe in (BOOKWORM, TRIXIE, FORKY)), "simple", "notify"]

# With several processes, the longest start first, so that all processes end at about the same time.
LONGEST_FIRST = (
    "test_plan-trixie",
    "test_book",
    "test_plan-bookworm",
    "test_pinning-trixie",
    "test_owners-forky",
    "test_owners-trixie",
    "test_pinning-forky",
    "test_packages-bookworm",
    "test_service",
    "test_admission-simple",
    "test_packages-trixie",
    "test_report",
    "test_admission-notify",
    "test_faults",
    "test_odd_hosts",
)

cut_short: set[str] = set()
measured: list[str] = []


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The image that the guest boots. A module may override this fixture."""
    return BOOKWORM


@pytest.fixture(scope="module")
def image(recipe: Recipe) -> Image:
    return cached(recipe)


@pytest.fixture(scope="module")
def arguments() -> str:
    """The kernel arguments that isolate CPUs. A module may override this fixture."""
    return ISOLATED


@pytest.fixture(scope="module")
def guest_files() -> Sequence[Path]:
    """The files in the guest's /mnt/files. A module may override this fixture."""
    return ()


@pytest.fixture(scope="module")
def guest(
    request: pytest.FixtureRequest,
    recipe: Recipe,
    image: Image,
    arguments: str,
    guest_files: Sequence[Path],
) -> Iterator[Guest]:
    """The module's guest. Its tests run in order, and each sees the effects of those before it."""
    log = REPORTS / f"{request.path.stem}-{recipe.name}.console"
    with start(image, append=arguments, files=guest_files, log=log) as guest:
        yield guest


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a measured value at the end of the run."""
    return lambda text: record_property("measured", text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not FULL:
        left_out = [item for item in items if item.get_closest_marker(in_full_run.name)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]

    def rank(item: pytest.Item) -> int:
        name = guest_name(item.nodeid)
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


def guest_name(nodeid: str) -> str:
    """Identifies the guest of a test: by module, and by parameter if the module uses several."""
    path, _, test = nodeid.partition("::")
    parameter = test.partition("[")[2].partition("-")[0].rstrip("]")
    module = Path(path).stem
    return f"{module}-{parameter}" if parameter in GUESTS else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes, all tests of one guest run in the same process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGuest(LoadScopeScheduling):  # type: ignore[misc]
        """Overrides what pytest-xdist documents as the method to override."""

        def _split_scope(self, nodeid: str) -> str:
            return guest_name(nodeid)

    return ByGuest(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, None]:
    """Setting up fixtures starts the guest, so a panic can happen here too."""
    skip_if_cut_short(item, (yield))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    skip_if_cut_short(item, (yield))


def skip_if_cut_short(item: pytest.Item, outcome: Any) -> None:
    """Skips a test that failed because the emulated kernel panicked, and those after it.

    A panic is a fault of the emulation: no program in the guest can cause one. The later tests
    of the module depend on the same guest, so their results mean nothing either.
    """
    error = outcome.excinfo and outcome.excinfo[1]
    dead = PANICKED in str(error) or item.location[0] in cut_short
    if isinstance(error, NeverCameUp) or (isinstance(error, Lost) and dead):
        cut_short.add(item.location[0])
        item.user_properties.append(("cut short", item.location[0]))
        outcome.force_exception(pytest.skip.Exception(f"{PANICKED}: emulation's fault"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collects from the reports, because the tests may run in other processes."""
    for name, value in report.user_properties:
        if name == "cut short":
            cut_short.add(str(value))
        elif name == "measured" and report.when == "call":
            measured.append(str(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in measured:
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Sets a separate exit status for an interrupted run: it neither passed nor failed."""
    if hasattr(session.config, "workerinput"):
        return  # the controller writes the file
    REPORTS.mkdir(parents=True, exist_ok=True)
    CUT_SHORT.write_text("\n".join(sorted(cut_short)))
    if cut_short and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = EXIT_CUT_SHORT


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    guest = getattr(item, "funcargs", {}).get("guest")
    if report.failed and isinstance(guest, Guest):
        kept = keep_traces(guest, re.sub(r"[^\w.-]+", "-", item.name))
        report.sections.append(("The guest's journal and console", "\n".join(map(str, kept))))


def keep_traces(guest: Guest, name: str) -> tuple[Path, Path]:
    """Saves the guest's journal and console. If the guest is lost, the journal file says why."""
    journal, console = REPORTS / f"{name}.journal", REPORTS / f"{name}.console"
    try:
        journal.write_text(guest.journal())
    except (Lost, AssertionError) as error:
        journal.write_text(f"{error}\n")
    shutil.copy(guest.console, console)
    return journal, console
