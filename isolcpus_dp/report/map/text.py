"""Text for a picture: safe in XML and in a terminal, and in lines that fit in any usual font."""

from __future__ import annotations

import functools
import math
import unicodedata

SIZE, HEADING_SIZE = 12, 14  # of the fonts, in pixels
LINE = 17  # from one line of text to the next

# The width of a character relative to the font size. It is 0.6 in most monospace fonts. In the
# widest of the usual sans-serif fonts, DejaVu Sans Bold, it is 0.59 on average, and 0.69 in
# "NUMA node 0".
_ADVANCE, _HEADING_ADVANCE = 0.62, 0.70


def clean(text: str) -> str:
    """The text in one line, without control characters: terminals obey them, XML forbids most.

    Names and sentences come from outside. Invisible characters, such as half of a surrogate pair
    or a change of the writing direction, become U+FFFD.
    """
    spaced = "".join(" " if character.isspace() else character for character in text)
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character)[0] == "C" else character
        for character in spaced
    )


def width(characters: int) -> int:
    """The maximum width of a line with this number of characters in a monospace font."""
    return math.ceil(characters * SIZE * _ADVANCE)


def heading_width(heading: str) -> int:
    """The maximum width of the heading of a box in a bold sans-serif font."""
    return math.ceil(len(heading) * SIZE * _HEADING_ADVANCE)


@functools.lru_cache(maxsize=4096)
def lines(text: str, room: int, breaks: str, size: int = SIZE) -> tuple[str, ...]:
    """The text in lines that are no wider than `room`.

    A line ends after one of the characters in `breaks` if one is in its second half.
    """
    columns = int(room / (size * _ADVANCE))
    found = []
    while text:
        end = _fitting(text, columns)
        if end < len(text):
            last = max(text.rfind(character, 0, end) + 1 for character in breaks)
            end = last if last > end // 2 else end
        found.append(text[:end].strip())
        text = text[end:].lstrip()
    return tuple(found)


def _fitting(text: str, columns: int) -> int:
    """The number of characters that fit, at least one. Wide East Asian ones take two columns."""
    taken = 0
    for position, character in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if taken > columns:
            return max(position, 1)
    return len(text)
