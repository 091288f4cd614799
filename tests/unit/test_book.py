"""Checks the pages: commands, links, paths, examples, and the layout in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import book
from tests.book import ROOT, Block, Command
from tests.vm import runtime

LANGUAGES = {"sh", "text", "ini", "yaml", "toml"}
MAKEFILE = (ROOT / "Makefile").read_text()

every_page = pytest.mark.parametrize("page", book.pages())


def blocks(page: str, language: str) -> list[Block]:
    return [
        step for step in book.steps(page) if isinstance(step, Block) and step.language == language
    ]


def documents(page: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(block.text) for block in blocks(page, "yaml")]


def rules() -> dict[str, tuple[list[str], bool]]:
    """By target of the Makefile: its prerequisites, and whether it has a recipe."""
    found = re.findall(r"^([\w$()/.-]+):(?!=)[ \t]*(.*)\n(\t)?", MAKEFILE, re.MULTILINE)
    return {target: (needs.split(), bool(recipe)) for target, needs, recipe in found}


def made_by_ci() -> set[str]:
    """The targets that .ci/run makes, with their prerequisites."""
    script = (ROOT / ".ci/run").read_text()
    due = [
        word
        for line in re.findall(r"^make (.*)$", script, re.MULTILINE)
        for word in line.split()
        if not word.startswith("-")
    ]
    made: set[str] = set()
    while due:
        target = due.pop()
        if target not in made:
            made.add(target)
            due += rules().get(target, ([], False))[0]
    return made


def recipe(target: str) -> str:
    """The recipe of a target, as written in the Makefile."""
    [lines] = re.findall(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return str(lines)


def is_made_by_ci(target: str) -> bool:
    needs, has_recipe = rules()[target]
    return target in made_by_ci() or (not has_recipe and set(needs) <= made_by_ci())


@every_page
def test_every_command_is_run_by_a_test(page: str) -> None:
    not_made_by_ci = {*book.ELSEWHERE, *book.BY_HAND}
    for command in book.commands_of(page):
        if command.text in book.ELSEWHERE:
            continue
        if command.text.startswith("make "):
            words = shlex.split(command.text)[1:]
            for target in (word for word in words if "=" not in word):
                assert target in rules(), (
                    f"{page}: {command.text}: no such target in the Makefile: {target}"
                )
                assert is_made_by_ci(target) or f"make {target}" in not_made_by_ci, (
                    f"{page}: {command.text}: .ci/run does not make {target}"
                )
        else:
            assert page in book.ON_A_GUEST, (
                f"{page}: {command.text}: run it on a guest (ON_A_GUEST in tests/book.py),"
                " or name the test that does (ELSEWHERE)"
            )


def all_commands() -> set[str]:
    """The commands of all pages; also one for each target of a make command."""
    commands = {command.text for page in book.pages() for command in book.commands_of(page)}
    return commands | {
        f"make {target}"
        for text in commands
        if text.startswith("make ")
        for target in text.split()[1:]
    }


def test_commands_run_elsewhere_are_run_there() -> None:
    for command, file in book.ELSEWHERE.items():
        assert command in all_commands(), f"no page contains it: {command}"
        text = (ROOT / file).read_text()
        for word in words_that_run(command):
            assert word in text, f"{file} does not run {command}: {word} is missing"


def words_that_run(command: str) -> list[str]:
    """The words of a command without patterns; for make, of the last line of the recipe."""
    words = shlex.split(command)
    if words[0] != "make":
        return [word for word in words if "*" not in word]
    return [word for word in recipe(words[1]).splitlines()[-1].split() if "$" not in word]


def test_exceptions_to_commands_are_in_the_pages() -> None:
    text = " ".join("".join(book.prose(page) for page in book.pages()).split())
    for words in book.NOT_COMMANDS:
        assert f"`{words}`" in text, f"no page contains it: {words}"


def targets_in_contributing() -> dict[str, str]:
    """By target: its description in CONTRIBUTING.md."""
    table = re.findall(r"^\| `make ([a-z-]+)` \| (.+) \|$", book.text_of("CONTRIBUTING.md"), re.M)
    return dict(table)


def test_contributing_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(targets_in_contributing()) == {*phony.split()} - {"force"}  # it is internal


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("goal", [["help"], []], ids=["help", "no goal"])
def test_help_prints_the_targets_of_contributing(goal: list[str]) -> None:
    command = ["make", "--no-print-directory", *goal]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert dict(re.findall(r"^(\S+) +(.+)$", printed, re.M)) == targets_in_contributing()


def test_targets_made_by_hand_are_in_the_pages_and_not_in_ci() -> None:
    for command in book.BY_HAND:
        assert command in all_commands(), f"no page contains it: {command}"
        assert not is_made_by_ci(command.split()[1])


def test_make_test_includes_its_parts() -> None:
    assert recipe("test").endswith(" -m pytest -q -n 2 --dist loadfile\n")
    settings = (ROOT / "pyproject.toml").read_text()
    assert 'testpaths = ["tests/unit", "tests/integration"]' in settings
    assert recipe("test-unit").endswith(" -m pytest -q tests/unit\n")
    assert recipe("test-placement").endswith(" -q tests/unit/test_placement_proof.py\n")


def test_make_bench_runs_every_program_of_its_directory() -> None:
    programs = {path.name for path in (ROOT / "bench").iterdir() if path.is_file()}
    [listed] = re.findall(r"^BENCHES := (.+)$", MAKEFILE, re.MULTILINE)
    assert {*listed.split(), "storm"} == programs
    assert "for program in $(BENCHES);" in recipe("bench")
    assert "/bench/storm " in recipe("storm")


def test_make_fuzz_searches_ten_minutes_and_ci_thirty_seconds() -> None:
    assert "\nFUZZ_SECONDS := 600\n" in MAKEFILE
    assert recipe("fuzz").endswith(" -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)\n")
    assert "\nmake fuzz FUZZ_SECONDS=30 FUZZ_SEED=1\n" in (ROOT / ".ci/run").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_clean_removes_only_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "build/venv").mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_example_of_a_single_test_exists() -> None:
    command = "build/venv/bin/python -m pytest -q -o faulthandler_timeout=0 tests/vm/test_guest.py"
    assert command in book.ELSEWHERE
    arguments = [sys.executable, *command.split()[1:], "--collect-only"]
    found = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/vm/test_guest.py::test_everything_has_started" in found.stdout


@every_page
def test_every_block_has_a_language(page: str) -> None:
    opened = re.findall(r"^ *```(.*)$", book.text_of(page), re.MULTILINE)[::2]
    assert set(opened) <= LANGUAGES
    assert not re.search(r"\n\n {4,}\S", book.prose(page)), "an indented block has no language"


@every_page
def test_every_link_has_a_target(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", book.text_of(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = [
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            ]
            assert anchor in slugs, target


@every_page
def test_every_path_in_the_pages_exists(page: str) -> None:
    top = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir())
    for code in re.findall(r"`([^`\s]+)`", book.prose(page)):
        if re.fullmatch(rf"(?:{top})/[\w./-]*|Makefile|setup\.cfg|pyproject\.toml", code):
            assert (ROOT / code).exists() or code.startswith("build/"), code


def test_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)\)", book.text_of("README.md")))
    assert linked >= {page for page in book.pages() if page != "README.md"}


def test_readme_shows_the_output_of_make_run() -> None:
    [shown] = [one.text for one in blocks("README.md", "text") if "machine  2x8x2" in one.text]
    command = [sys.executable, "-m", "isolcpus_dp", "simulate", "--machine", "2x8x2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    printed = [re.sub(r" +\d+\.\d ms$", "", line) for line in ended.stdout.splitlines()]
    assert printed == [re.sub(r" +\d+\.\d ms$", "", line) for line in shown.splitlines()]


@every_page
def test_pods_request_as_much_as_their_limits(page: str) -> None:
    for pod in (one for one in documents(page) if one.get("kind") == "Pod"):
        owners = 0
        for container in pod["spec"]["containers"]:
            resources = container.get("resources", {})
            limits, requests = resources.get("limits", {}), resources.get("requests", {})
            for name in (name for name in {*limits, *requests} if "/" in name):
                owners += 1
                assert requests.get(name, limits[name]) == limits[name]
        assert owners, pod["metadata"]["name"]


def test_guaranteed_pod_is_guaranteed() -> None:
    [pod] = [
        one
        for one in documents("docs/pods.md")
        if one.get("metadata", {}).get("name") == "guaranteed"
    ]
    for container in pod["spec"]["containers"]:
        assert container["resources"]["requests"] == container["resources"]["limits"]


@every_page
def test_every_toml_block_is_valid(page: str) -> None:
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    for block in blocks(page, "toml"):
        assert tomllib.loads(block.text), f"{page}, line {block.line}"


def test_starlingx_page_names_the_dependencies() -> None:
    control = (ROOT / "packaging/deb/control").read_text()
    [depends] = re.findall(r"^Depends:\n((?: .*\n)+)", control, re.MULTILINE)[:1]
    needed = set(re.findall(r"^ ([a-z0-9-]+)", depends, re.MULTILINE))
    assert len(needed) == 5
    assert set(re.findall(r"`(python3-[a-z0-9-]+)`", book.prose("docs/starlingx.md"))) == needed


def test_containerd_settings_are_those_of_the_tests() -> None:
    [nri_on] = [one for one in blocks("docs/runtime.md", "toml") if "version = 2" in one.text]
    lines = [line.strip() for line in nri_on.text.splitlines() if line.strip()]
    assert len(lines) == 4
    assert set(lines) <= set(f"{runtime.SETTINGS[1]}{runtime.NRI}".splitlines())


def test_drop_ins_for_another_directory_match_the_units() -> None:
    [drop_ins] = [one for one in blocks("docs/kubelet.md", "ini") if "/data/kubelet" in one.text]
    files = drop_ins.files()
    assert len(files) == 3
    for path, text in files.items():
        unit = path.parent.name[: -len(".d")]
        lines = (ROOT / "systemd" / unit).read_text().splitlines()
        usual = text.replace(" --kubelet-dir /data/kubelet", "")
        usual = usual.replace("/data/kubelet", "/var/lib/kubelet")
        keys = {line.partition("=")[0] for line in usual.splitlines() if "=" in line}
        # An empty assignment resets a setting, so the drop-in must repeat all lines of the unit.
        expected = [line for line in lines if line.partition("=")[0] in keys]
        assert [line for line in usual.splitlines() if re.search("=.", line)] == expected
        assert {line[:-1] for line in usual.splitlines() if line.endswith("=")} == keys


def test_served_metrics_are_those_of_the_page() -> None:
    served = set(
        re.findall(r'"(isolcpus_dp_\w+)"', (ROOT / "isolcpus_dp/kubelet/metrics.py").read_text())
    )
    described = set(re.findall(r"`(isolcpus_dp_\w+)`", book.text_of("docs/operations.md")))
    assert {name.replace("_total", "") for name in described} == served


def layout() -> list[str]:
    """The directories and modules in the table of docs/architecture.md, in order."""
    page = book.text_of("docs/architecture.md")
    table = page.partition("| directory or module in")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([\w./]+)` \|", table, re.MULTILINE)


def row_of(module: str) -> str:
    """The row of a module in the layout: `pool.py` for pool, `nri/` for nri.plugin."""
    name, *_ = module.split(".")
    return f"{name}.py" if (ROOT / f"isolcpus_dp/{name}.py").exists() else f"{name}/"


def imports(file: Path) -> Iterator[str]:
    """The modules of isolcpus_dp that a file imports, also in functions; without the prefix."""
    for node in ast.walk(ast.parse(file.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: a relative import"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("isolcpus_dp.")]
            yield from (name.partition(".")[2] for name in names)
        elif isinstance(node, ast.ImportFrom) and node.module == "isolcpus_dp":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isolcpus_dp."):
            yield str(node.module).partition(".")[2]


def test_every_directory_and_module_is_in_the_layout() -> None:
    found = {
        path.name if path.is_file() else f"{path.name}/"
        for path in (ROOT / "isolcpus_dp").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(layout()) == sorted(found - {"__init__.py", "__main__.py"})


def test_no_module_has_more_than_three_hundred_lines() -> None:
    files = [*(ROOT / "isolcpus_dp").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    long = [path.name for path in files if len(path.read_text().splitlines()) > 300]
    assert [name for name in long if "_pb2" not in name] == []


def test_modules_import_only_from_rows_above() -> None:
    order = layout()
    for file in sorted((ROOT / "isolcpus_dp").rglob("*.py")):
        inside = str(file.relative_to(ROOT / "isolcpus_dp"))
        row = next((one for one in order if inside == one or inside.startswith(one)), None)
        if row is None or row == "api/":
            continue
        for module in imports(file):
            assert order.index(row_of(module)) <= order.index(row), f"{inside} imports {module}"


def test_commands_are_found_in_blocks_and_in_sentences() -> None:
    assert list(
        book.commands_in_block("make run   # shows it\nisolcpus-dp check # exit status 1\n")
    ) == [
        Command("make run"),
        Command("isolcpus-dp check", 1),
    ]
    assert list(
        book.commands_in_prose("`grep a \\| cat` of `isolcpus-dp`, `apt x` (exit\nstatus 2)")
    ) == [
        Command("grep a | cat"),
        Command("apt x", 2),
    ]
    programs = "`no-such_program1.0 x`, `/usr/local/sbin/y z`, `./run it`"
    assert list(book.commands_in_prose(f"{programs}, `disable = true`")) == [
        Command("no-such_program1.0 x"),
        Command("/usr/local/sbin/y z"),
        Command("./run it"),
    ]
    others = "`key=value other=one`, `2-3,6 and 7`, `/etc/fstab /proc`, `Pod: x`, `--svg FILE`"
    assert list(book.commands_in_prose(others)) == []


@pytest.mark.parametrize(
    ("page_says", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("b\n", "a\nb\n", False),
        ("...\nb\n", "a\nb\n", True),
        ("...\nb\n", "b\n", True),
        ("...\nb\n", "b\nc\n", False),
        ("a\n...\n", "a\nb\n", True),
        ("a\n...\nc\n", "a\nb\nc\n", True),
        ("a\n...\nc\n", "a\nc\n", True),
        ("a\n...\na\n", "a\n", False),
        ("...\nb\n...\n", "a\nb\nc\n", True),
        ("...\nc\n...\nb\n...\n", "a\nb\nc\n", False),
        ("after 12 ms\n", "after 7 ms\n", True),
        ("containerd 1.7.24, up\n", "containerd 2.1.9, up\n", True),
    ],
)
def test_output_matches_what_the_page_shows(page_says: str, printed: str, same: bool) -> None:
    assert book.shows(page_says, printed) is same
