"""Reads a YAML or JSON document of the kubelet: a configuration, a checkpoint or a manifest.

Only files that root alone can write are read, and the size, depth and aliases are bounded.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import trust
from isolcpus_dp.host.files import Unseen

if TYPE_CHECKING:
    import yaml

# The most values in a document when its aliases are expanded, and the deepest nesting.
_MOST_VALUES = 100_000
_DEEPEST = 100
# The most characters of an integer. Python refuses to print one of more than 4300 digits.
_LONGEST_NUMBER = 100
_INTEGER = "tag:yaml.org,2002:int"


def read(file: Path) -> dict[str, Any]:
    """The first document in a file; empty if it is no mapping, or missing. Raises Unseen."""
    text = trust.text(file)
    return parse(file, text) if text else {}


def drop_ins(directory: Path) -> list[Path]:
    """The files of --config-dir, in the order in which the kubelet reads them. Raises Unseen.

    It descends into directories, but not into links to directories (kubelet: filepath.WalkDir in
    cmd/kubelet/app/server.go).
    """
    found = list[Path]()
    for name in trust.names(directory):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            found += drop_ins(path)
        elif name.endswith(".conf"):
            found.append(path)
    if len(found) > trust.MOST_NAMES:
        raise Unseen(f"{directory} is not read: it has more than {trust.MOST_NAMES} files")
    return found


def parse(file: Path, text: str) -> dict[str, Any]:
    """The first document in the text of a file; empty if it is no mapping. Raises Unseen."""
    # PyYAML does not accept the tabs that JSON allows.
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(text)
        if _is_deep(document):
            raise _too_complex(file)
        return _mapping(document)
    try:
        import yaml  # only commands that read the kubelet's configuration need it
    except ImportError:
        raise Unseen(f"cannot read {file} without PyYAML: install python3-yaml") from None
    try:
        return _mapping(_first(file, yaml.SafeLoader(text)))
    except RecursionError:
        raise _too_complex(file) from None
    except (yaml.YAMLError, ValueError) as error:
        # A value such as 2026-99-99 is a ValueError.
        reason = str(error).replace("\n", " ")
        raise Unseen(f"{file} is not valid YAML: {reason}") from error


def _first(file: Path, loader: yaml.SafeLoader) -> Any:
    """As the kubelet does, only the first document is used. Raises Unseen and YAMLError."""
    try:
        if not loader.check_node():
            return None
        root = loader.get_node()
        if root and _values(root, {}) > _MOST_VALUES:
            raise _too_complex(file)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, int], depth: int = 0) -> int:
    """The number of values below a node, its aliases expanded.

    Raises RecursionError, and ValueError for a number that is too long.
    """
    if depth > _DEEPEST:
        raise RecursionError  # also a node that is its own alias
    if node.tag == _INTEGER and len(node.value) > _LONGEST_NUMBER:
        raise ValueError(f"a number has more than {_LONGEST_NUMBER} characters")
    if id(node) not in known:
        children = node.value if isinstance(node.value, list) else []
        flat = [one for child in children for one in (child if type(child) is tuple else [child])]
        known[id(node)] = 1 + sum(_values(child, known, depth + 1) for child in flat)
    return known[id(node)]


def _is_deep(document: Any) -> bool:
    """Whether a JSON document has more than the allowed levels of nesting."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if type(value) is list else []


def _too_complex(file: Path) -> Unseen:
    return Unseen(
        f"{file} is not read: it has more than {_MOST_VALUES} values or {_DEEPEST} levels of"
        " nesting"
    )


def _mapping(document: Any) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}
