"""Files in systemd's style: the main file, its drop-ins, and the assignments in them."""

from __future__ import annotations

import configparser
import contextlib
import re
import stat
from collections.abc import Iterable
from pathlib import Path

_HEADER = re.compile(r"\[[^]]*\](\s+#.*)?")


class ConfigError(Exception):
    """A file that cannot be used: file, section, key, value, and what is allowed."""


def paths(main: Path, must_exist: bool) -> list[Path]:
    """The main file and its drop-ins, in the order they are read in. Raises ConfigError."""
    folder = main.parent / f"{main.name}.d"
    there, names = False, list[str]()
    # What is not there is asked for here alone: is_file() may say so of what may not be looked at.
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            there = stat.S_ISREG(main.stat().st_mode)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {_reason(error)}") from error
    if must_exist and not there:
        raise ConfigError(f"{main}: no such file; --config needs an existing configuration file")
    # As systemd does: what an editor hides while it is at work is no drop-in.
    drop_ins = sorted(name for name in names if name.endswith(".conf") and name[0] != ".")
    return [*([main] if there else []), *(folder / name for name in drop_ins)]


def sections(path: Path) -> dict[str, dict[str, str]]:
    """What a file says, by section and key. Raises ConfigError."""
    parser = configparser.ConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=("#",),
        default_section="",  # configparser's [DEFAULT] is not a section of ours
        interpolation=None,
        empty_lines_in_values=False,
        strict=False,
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        # Blanks before a key mean nothing to systemd; configparser would go on with the key above.
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
        _check_headers(path, lines)
        parser.read_string("\n".join(lines), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _check_headers(path: Path, lines: Iterable[str]) -> None:
    """configparser passes over what follows a [section] in its line. Raises ConfigError."""
    for number, line in enumerate(lines, start=1):
        if line.startswith("[") and not _HEADER.fullmatch(line):
            raise ConfigError(
                f"{path}: line {number}, {line!r}, is neither [Section] nor Key=value"
            )


def _reason(error: Exception) -> str:
    """What a file's reader complains of, in one line."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} is before the first section; begin with [Plugin]"
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        return f"line {line}, {text}, is neither [Section] nor Key=value"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text; save the file as UTF-8"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
