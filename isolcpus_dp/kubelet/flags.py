"""The kubelet's flags, such as --root-dir."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Those whose values are paths that are used here.
_PATHS = ("config", "config-dir", "root-dir", "pod-manifest-path")

# Flags that add to their value each time that they are given; the times are separated by lines.
_ADDING = frozenset(
    (
        "system-reserved",
        "kube-reserved",
        "enforce-node-allocatable",
        "eviction-hard",
        "feature-gates",
        "cpu-manager-policy-options",
        "reserved-memory",
        "topology-manager-policy-options",
    )
)


@dataclass(frozen=True)
class Arguments:
    """A kubelet's arguments."""

    source: str  # what they were read from
    flags: Mapping[str, str]  # by name, without dashes; paths are absolute


def parse(words: Sequence[str]) -> dict[str, str]:
    """By name: the values of flags, given as --name=value or --name value.

    Of a flag that is given several times, the last value counts, or all as lines if they add up.
    """
    flags: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            # The kubelet accepts underscores as well.
            flag, given = name.lstrip("-").replace("_", "-"), value if equals else following
            before = flags.get(flag) if flag in _ADDING else None
            flags[flag] = given if before is None else f"{before}\n{given}"
    return flags


def absolute(flags: Mapping[str, str], resolve: Callable[[str], Path]) -> dict[str, str]:
    """The flags with absolute paths; `resolve` makes a path absolute."""
    paths = {name: str(resolve(flags[name])) for name in _PATHS if flags.get(name)}
    return {**flags, **paths}
