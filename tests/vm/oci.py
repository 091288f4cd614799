"""Writes an OCI archive of a container image that contains one static program."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def write_archive(archive: Path, name: str, program: Path) -> None:
    """Writes an image called `name` that runs the static `program` from its root directory."""
    with tarfile.open(archive, "w") as tar:
        layer = tree({program.name: program.read_bytes()}, mode=0o755)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": add_blob(tar, CONFIG, json.dumps(config).encode()),
            "layers": [add_blob(tar, LAYER, layer)],
        }
        described = add_blob(tar, MANIFEST, json.dumps(manifest).encode())
        index = {
            "schemaVersion": 2,
            "manifests": [{**described, "annotations": {"io.containerd.image.name": name}}],
        }
        add(tar, "index.json", json.dumps(index).encode())
        add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())


def tree(files: dict[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            add(tar, path, content, mode)
    return out.getvalue()


def add_blob(tar: tarfile.TarFile, media_type: str, content: bytes) -> dict[str, Any]:
    """Adds a blob, named after its digest. Returns its descriptor."""
    add(tar, "blobs/" + digest(content).replace(":", "/"), content)
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
