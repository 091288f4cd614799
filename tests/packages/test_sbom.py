"""The bill of materials: valid, complete, and the archive's own words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from debian.deb822 import Deb822, PkgRelation

from .build import BUILD, TOP, archive, as_made


def bill_as_made() -> str:
    """The bill of this version, as `make sbom` has made it."""
    file = BUILD / archive().name.replace(".tar.gz", ".cdx.json")
    assert file.exists(), f"{file} is not there: make sbom"
    return file.read_text()


def test_bill_names_all_that_the_packages_pull_in() -> None:
    text = bill_as_made()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bill = json.loads(text)
    versions = {one["name"]: one["version"] for one in bill["components"]}
    control = Path(TOP / "packaging/deb/control").read_text()
    [_, plugin, _] = Deb822.iter_paragraphs(control)
    asked_for = {
        one["name"]
        for alternatives in PkgRelation.parse_relations(plugin["Depends"] + plugin["Recommends"])
        for one in alternatives
        if one["name"] and not one["name"].startswith("${")
    }
    assert asked_for >= {"python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-rich"}
    assert asked_for <= versions.keys()
    assert {"libc6", "libprotobuf32", "python3-minimal"} <= versions.keys()
    assert not {"isolcpus-dp", "isolcpus-dp-pin"} & versions.keys()
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "python3-grpcio"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert versions["python3-grpcio"] == Deb822(shown.stdout)["Version"]


def test_two_bills_of_the_same_packages_are_the_same(tmp_path: Path) -> None:
    again = tmp_path / "again"
    command = [sys.executable, "tools/sbom", again, *as_made()]
    subprocess.run([str(word) for word in command], cwd=TOP, check=True)
    assert again.read_text() == bill_as_made(), "apt may know more since: make sbom"
