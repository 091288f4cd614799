"""The unit and integration tests on the oldest and the newest supported Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from .build import TOP, archive
from .root import Recipe, Root, unpacked

# Python 3.9 is Debian 11's and EL9's.
OLDEST = Recipe(
    "bullseye", ("python3-pyudev", "python3-sdnotify", "python3-systemd", "python3-venv")
)
# The versions in EL9. Its protoc is 3.14, which this version of grpcio-tools contains.
EL9 = ("grpcio==1.46.5", "protobuf==3.14.0", "grpcio-tools==1.35.0")
# Dependencies on Python 3.9 only. pip does not find them, because it runs on a newer Python.
BACKPORTS = ("backports-asyncio-runner", "exceptiongroup", "tomli", "typing-extensions")

NEWEST = Recipe(
    "forky",
    (
        "protobuf-compiler",
        "protobuf-compiler-grpc",
        "python3-grpcio",
        "python3-hypothesis",
        "python3-jsonschema",
        "python3-prometheus-client",
        "python3-protobuf",
        "python3-pytest",
        "python3-pytest-asyncio",
        "python3-pyudev",
        "python3-rich",
        "python3-sdnotify",
        "python3-setuptools",
        "python3-systemd",
        "python3-yaml",
    ),
    # Indexes of a testing release expire soon, but mirrors may not be updated as often.
    ('Acquire::Check-Valid-Until "false"',),
)


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """Python 3.9 in a virtual environment /venv, with wheels from PyPI."""
    with unpacked(OLDEST) as root:
        wheels = root.path("/wheels")
        extra = subprocess.run(
            [TOP / "tools/extra", "test"], cwd=TOP, stdout=subprocess.PIPE, text=True, check=True
        )
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
                *("--only-binary=:all:", "--python-version=3.9", "--platform=manylinux2014_x86_64"),
                *("--platform=manylinux_2_17_x86_64", "--dest", wheels),
                *(*EL9, *BACKPORTS, *extra.stdout.split()),
            ],
            check=True,
        )
        root.run("python3 -m venv --system-site-packages /venv")
        root.run("/venv/bin/pip install -q --no-index --ignore-installed /wheels/*.whl")
        yield root


@pytest.fixture(scope="module")
def newest() -> Iterator[Root]:
    with unpacked(NEWEST) as root:
        yield root


def run_tests(root: Root, python: str) -> str:
    """The output of the unit and integration tests, with interfaces generated in the root."""
    source = root.path("/source")
    source.mkdir()
    subprocess.run(
        ["tar", "--extract", "--strip-components=1", "-f", archive(), "-C", source], check=True
    )
    root.run(f"cd /source && {python} setup.py -q build --build-lib /built")
    root.run("cp /built/isolcpus_dp/api/*_pb2* /source/isolcpus_dp/api/")
    # The proof of placement hardly depends on Python: a few cases are enough.
    tests = f"cd /source && {python} -m pytest -q -p no:cacheprovider"
    return root.run(tests, environment={"PLACEMENT_CASES": "100"}).stdout


def test_all_tests_pass_on_the_oldest_python(oldest: Root) -> None:
    assert oldest.run("/venv/bin/python --version").stdout.startswith("Python 3.9.")
    versions = "import grpc, google.protobuf as p; print(grpc.__version__, p.__version__)"
    assert oldest.run(f"/venv/bin/python -c '{versions}'").stdout == "1.46.5 3.14.0\n"
    protoc = oldest.run("/venv/bin/python -m grpc_tools.protoc --version").stdout
    assert protoc == "libprotoc 3.14.0\n"
    assert " passed" in run_tests(oldest, "/venv/bin/python")


def test_all_tests_pass_on_the_newest_python_of_debian(newest: Root) -> None:
    assert newest.run("python3 --version").stdout.startswith("Python 3.14.")
    assert " passed" in run_tests(newest, "python3")
