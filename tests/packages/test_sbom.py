"""The bill of materials is valid, complete and reproducible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from debian.deb822 import Deb822, PkgRelation

from .build import BUILD, TOP, archive, as_made


def bill_text() -> str:
    """The bill of this version that `make sbom` has written."""
    file = BUILD / archive().name.replace(".tar.gz", ".cdx.json")
    assert file.exists(), f"{file} is missing: run make sbom"
    return file.read_text()


def test_bill_names_all_packages_that_are_installed() -> None:
    text = bill_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bill = json.loads(text)
    versions = {one["name"]: one["version"] for one in bill["components"]}
    control = Path(TOP / "packaging/deb/control").read_text()
    [_, plugin, _] = Deb822.iter_paragraphs(control)
    required = {
        one["name"]
        for alternatives in PkgRelation.parse_relations(plugin["Depends"] + plugin["Recommends"])
        for one in alternatives
        if one["name"] and not one["name"].startswith("${")
    }
    assert required >= {"python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-rich"}
    assert required <= versions.keys()
    assert {"libc6", "libprotobuf32", "python3-minimal"} <= versions.keys()
    assert not {"isolcpus-dp", "isolcpus-dp-pin"} & versions.keys()
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "python3-grpcio"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert versions["python3-grpcio"] == Deb822(shown.stdout)["Version"]


def test_same_packages_have_the_same_bill(tmp_path: Path) -> None:
    again = tmp_path / "again"
    command = [sys.executable, "tools/sbom", again, *as_made()]
    subprocess.run([str(word) for word in command], cwd=TOP, check=True)
    assert again.read_text() == bill_text(), "apt's lists may have changed: run make sbom"
