"""Configuration files in systemd's style: the main file, its drop-ins, and their syntax.

Nothing here knows which sections and keys exist.
"""

from __future__ import annotations

import codecs
import configparser
import contextlib
import io
import re
import stat
from collections.abc import Iterable
from pathlib import Path

# What editors of other systems put before the text. UTF-32 first: it begins as UTF-16 does.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_HEADER = re.compile(r"\[[^]]*\](\s+#.*)?")


class ConfigError(Exception):
    """The configuration cannot be used: file, section, key, value, and what to use instead."""


def paths(main: Path, *, must_exist: bool) -> list[Path]:
    """The main file and its drop-ins, in the order in which they are read. Raises ConfigError."""
    directory = main.parent / f"{main.name}.d"
    exists, names = False, list[str]()
    # Only a missing file counts as missing; is_file() also returns False for some other errors.
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            exists = stat.S_ISREG(main.stat().st_mode)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.name for path in directory.iterdir()]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {_reason(error)}") from error
    if must_exist and not exists:
        raise ConfigError(f"{main}: no such file; --config needs an existing configuration file")
    # As in systemd, hidden files are no drop-ins: editors create them.
    drop_ins = sorted(name for name in names if name.endswith(".conf") and name[0] != ".")
    return [*([main] if exists else []), *(directory / name for name in drop_ins)]


def sections(path: Path) -> dict[str, dict[str, str]]:
    """A file's assignments, by section and key. Raises ConfigError."""
    parser = configparser.ConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=("#",),
        default_section="",  # [DEFAULT] is not special
        interpolation=None,
        empty_lines_in_values=False,
        strict=False,
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        # systemd ignores white space before a key; configparser would continue the previous value.
        lines = [line.strip() for line in _text(path).split("\n")]
        _check_lines(path, lines)
        parser.read_string("\n".join(lines), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _text(path: Path) -> str:
    """Raises ConfigError, OSError and UnicodeDecodeError."""
    data = path.read_bytes()
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            raise ConfigError(
                f"{path}: begins with a byte order mark of {encoding}; save the file as UTF-8"
                " without a byte order mark"
            )
    # As text, whose line ends may be of any kind.
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()


def _check_lines(path: Path, lines: Iterable[str]) -> None:
    """Refuses what configparser accepts: text after a [section] header, control characters.

    A zero byte cannot be in the path of a file. Raises ConfigError.
    """
    for number, line in enumerate(lines, start=1):
        control = _CONTROL.search(line)
        if control:
            raise ConfigError(
                f"{path}: line {number} has the control character {control[0]!r}; remove it"
            )
        if line.startswith("[") and not _HEADER.fullmatch(line):
            raise ConfigError(
                f"{path}: line {number}, {line!r}, is neither [Section] nor Key=value"
            )


def _reason(error: Exception) -> str:
    """Why a file cannot be read or parsed, in one line."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} is before the first section; begin with [Plugin]"
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        # From Python 3.13 on it is the line itself, and before its representation.
        shown = repr(text) if "\n" in text else text
        return f"line {line}, {shown}, is neither [Section] nor Key=value"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text; save the file as UTF-8"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
