"""The container runtime: NRI, where it is off by default; see docs/runtime.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.plan.part import MARK, File, Part

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target
    from isolcpus_dp.plan.survey import Known

CONTAINERD_CONFIG = PurePosixPath("/etc/containerd/config.toml")
_IMPORTED = PurePosixPath("/etc/containerd/conf.d")
_IMPORTS = f'imports = ["{_IMPORTED}/*.toml"]'
_CONTAINERD_FILE = _IMPORTED / "90-isolcpus-dp.toml"
_CRIO_FILE = PurePosixPath("/etc/crio/crio.conf.d/90-isolcpus-dp.conf")
# All files that the part may ever write.
PATHS = (_CONTAINERD_FILE, _CRIO_FILE)
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
                " CRI-O have NRI enabled; containerd 1.7 and CRI-O from 1.26 on need it in"
                " their configuration; containerd 1.6 has none. Run the plan again when the"
                " runtime is installed, or see runtime.md.",
            ),
        )
    if runtime.name == "crio":
        if _too_old(runtime):
            return Part("runtime", _SUMMARY, notes=(f"{_too_old(runtime)}.",))
        return Part("runtime", _SUMMARY, (File(_CRIO_FILE, _CRIO),))
    return _containerd(runtime)


def differences(_goal: Goal, known: Known, _root: Path) -> Iterator[str]:
    """Why the runtime has no NRI, although the file is as planned; one sentence."""
    runtime = known.runtime
    if runtime is None:
        return
    if _too_old(runtime):
        yield _too_old(runtime)
    elif _needs_file(runtime) and not _is_imported(runtime):
        commands, notes = _importing(runtime)
        advice = f"run {commands[0]}" if commands else f"{notes[0][0].lower()}{notes[0][1:-1]}"
        yield f"{CONTAINERD_CONFIG} does not import {_CONTAINERD_FILE}: {advice}"


def _too_old(runtime: Runtime) -> str:
    """That the version has no NRI, as a sentence without its period; empty if it has."""
    version = runtime.version
    if runtime.name == "crio" and version and version < (1, 26):
        return "CRI-O before 1.26 has no NRI: install a newer one"
    if runtime.name == "containerd" and version and version < (1, 7):
        return f"containerd {version[0]}.{version[1]} has no NRI: install 1.7 or newer"
    return ""


def _needs_file(runtime: Runtime) -> bool:
    """Whether it is a containerd that has NRI, and has it disabled by default."""
    return runtime.name == "containerd" and (runtime.version is None or runtime.version < (2, 0))


def _containerd(runtime: Runtime) -> Part:
    if _too_old(runtime):
        return Part("runtime", _SUMMARY, notes=(f"{_too_old(runtime)}.",))
    version = runtime.version
    if version and not _needs_file(runtime):
        note = f"containerd {version[0]}.{version[1]} has NRI enabled by default."
        return Part("runtime", _SUMMARY, notes=(note,))
    unknown = "The version of containerd is unknown: NRI is enabled as for 1.7."
    commands, more = _importing(runtime)
    notes = more if version else (unknown, *more)
    return Part("runtime", _SUMMARY, (File(_CONTAINERD_FILE, _CONTAINERD),), commands, notes)


def _importing(runtime: Runtime) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands and notes with which config.toml, which is somebody else's, imports the file."""
    if _is_imported(runtime):
        return (), ()
    if not runtime.config:
        return (f"printf 'version = 2\\n{_IMPORTS}\\n' > {CONTAINERD_CONFIG}",), ()
    if _imports(runtime) is None:
        return (f"sed -i '1i {_IMPORTS}' {CONTAINERD_CONFIG}",), ()
    return (), (f'Add "{_IMPORTED}/*.toml" to imports in {CONTAINERD_CONFIG}.',)


def _is_imported(runtime: Runtime) -> bool:
    # A relative pattern begins at the directory of config.toml.
    patterns = (CONTAINERD_CONFIG.parent / text for text in _imports(runtime) or ())
    return any(_CONTAINERD_FILE.match(str(pattern)) for pattern in patterns)


def _imports(runtime: Runtime) -> list[str] | None:
    """The patterns that config.toml imports; None if it has no such key."""
    text = re.sub(r"#.*", "", runtime.config or "")
    found = re.search(r"""^\s*imports\s*=\s*\[((?:[\s,]|"[^"]*"|'[^']*')*)""", text, re.M)
    return [part[1:-1] for part in re.findall(r""""[^"]*"|'[^']*'""", found[1])] if found else None
