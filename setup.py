"""Generates the Python modules of `proto/` when the package is built; setup.cfg has the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = Path("proto")
# The definitions are in proto/, but Python imports the generated modules from this package. protoc
# takes both paths as one --proto_path.
PACKAGE = Path("isolcpus_dp/api")


def compiler() -> list[str]:
    """protoc with its gRPC plugin: grpcio-tools if installed, else the distribution's."""
    if importlib.util.find_spec("grpc_tools"):
        return [sys.executable, "-m", "grpc_tools.protoc"]
    return ["protoc", "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin"]


class BuildWithInterfaces(build_py):
    def run(self) -> None:
        super().run()
        # An editable install runs the code from the source tree.
        root = Path() if getattr(self, "editable_mode", False) else Path(self.build_lib)
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *compiler(),
                f"--proto_path={PACKAGE}={PROTO}",
                f"--python_out={root}",
                f"--grpc_python_out={root}",
                *(str(PACKAGE / proto.name) for proto in sorted(PROTO.glob("*.proto"))),
            ],
            check=True,
        )


setup(cmdclass={"build_py": BuildWithInterfaces})
