"""What every message must be: one sentence in one line."""

from __future__ import annotations


def require(text: object, about: str = "") -> None:
    """Raises AssertionError if an error or a finding is not one line that begins with `about`."""
    assert str(text).strip(), "the message is empty"
    assert str(text).startswith(about), f"the message does not begin with {about}: {text}"
    assert "\n" not in str(text), f"the message has several lines: {text!r}"
