"""The container runtime: NRI, where it is off by default; see docs/runtime.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.plan.part import MARK, File, Part

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target

CONTAINERD_CONFIG = PurePosixPath("/etc/containerd/config.toml")
_IMPORTED = PurePosixPath("/etc/containerd/conf.d")
_IMPORTS = f'imports = ["{_IMPORTED}/*.toml"]'
_SUMMARY = "isolcpus-dp-pin reaches the container runtime through NRI."

_CONTAINERD = f"""\
# {MARK}
version = 2

[plugins."io.containerd.nri.v1.nri"]
  disable = false
  disable_connections = false
"""
_CRIO = f"""\
# {MARK}
[crio.nri]
enable_nri = true
"""


@dataclass(frozen=True)
class Runtime:
    """A container runtime of the host."""

    name: Literal["containerd", "crio"]
    version: tuple[int, int] | None = None  # None: unknown
    config: str | None = None  # the text of containerd's config.toml; None: there is none


def part(_goal: Goal, _target: Target, runtime: Runtime | None = None) -> Part:
    """The part; without a runtime, it says what each needs."""
    if runtime is None:
        return Part(
            "runtime",
            _SUMMARY,
            notes=(
                "The container runtime and its version are not known here. containerd 2 and newer"
                " CRI-O have NRI switched on; containerd 1.7 and CRI-O from 1.26 on need it in"
                " their configuration; containerd 1.6 has none. Make the plan again when the"
                " runtime is installed, or see runtime.md.",
            ),
        )
    if runtime.name == "crio":
        path = PurePosixPath("/etc/crio/crio.conf.d/90-isolcpus-dp.conf")
        old = runtime.version is not None and runtime.version < (1, 26)
        notes = ("CRI-O before 1.26 has no NRI: install a newer one.",) if old else ()
        return Part("runtime", _SUMMARY, () if old else (File(path, _CRIO),), notes=notes)
    return _containerd(runtime)


def _containerd(runtime: Runtime) -> Part:
    version = runtime.version
    if version is None:
        unknown = "The version of containerd is unknown: NRI is switched on as for 1.7."
        return _nri_on(runtime, (unknown,))
    if version >= (2, 0):
        note = f"containerd {version[0]}.{version[1]} has NRI switched on by default."
        return Part("runtime", _SUMMARY, notes=(note,))
    if version < (1, 7):
        note = f"containerd {version[0]}.{version[1]} has no NRI: install 1.7 or newer."
        return Part("runtime", _SUMMARY, notes=(note,))
    return _nri_on(runtime, ())


def _nri_on(runtime: Runtime, notes: tuple[str, ...]) -> Part:
    """A file that config.toml must import: that one belongs to somebody else."""
    lines = [line.strip() for line in (runtime.config or "").splitlines()]
    imports = [line for line in lines if line.startswith("imports")]
    commands: tuple[str, ...] = ()
    if runtime.config is None:
        commands = (f"printf 'version = 2\\n{_IMPORTS}\\n' > {CONTAINERD_CONFIG}",)
    elif not imports:
        commands = (f"sed -i '1i {_IMPORTS}' {CONTAINERD_CONFIG}",)
    elif not any(str(_IMPORTED) in line for line in imports):
        notes = (
            *notes,
            f'Add "{_IMPORTED}/*.toml" to imports in {CONTAINERD_CONFIG}, which does not import it'
            " yet.",
        )
    path = _IMPORTED / "90-isolcpus-dp.toml"
    return Part("runtime", _SUMMARY, (File(path, _CONTAINERD),), commands, notes)
