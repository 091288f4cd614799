"""Splitting any bytes of a runtime into frames and messages."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp.nri import frames

PIECES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=8)


def frame(connection: int, payload: bytes) -> bytes:
    return struct.pack(">II", connection, len(payload)) + payload


def cut_up(data: bytes, places: list[int]) -> list[bytes]:
    """The data in parts, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:])]


@given(PIECES, st.lists(st.integers(0, 5000), max_size=12))
def test_frames_are_found_however_the_bytes_arrive(
    pieces: list[tuple[int, bytes]], places: list[int]
) -> None:
    stream = b"".join(frame(connection, payload) for connection, payload in pieces)
    cutter = frames.frames()
    found = [
        (header[0], payload)
        for part in cut_up(stream, places)
        for header, payload in cutter.cut(part)
    ]
    assert found == pieces


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_end_in_pieces_or_in_a_frame_error(parts: list[bytes]) -> None:
    for cutter in (frames.frames(), frames.messages()):
        with contextlib.suppress(frames.FrameError):
            for part in parts:
                for header, payload in cutter.cut(part):
                    assert len(payload) in header


def test_rest_of_a_truncated_frame_is_waited_for() -> None:
    cutter = frames.frames()
    assert cutter.cut(frame(1, b"abc")[:-1]) == []
    assert cutter.cut(b"c") == [((1, 3), b"abc")]


def test_message_may_span_several_frames() -> None:
    whole = frames.message(1, 3, 1, b"payload")[8:]  # without the frame around it
    cutter = frames.messages()
    assert cutter.cut(whole[:12]) == []
    assert cutter.cut(whole[12:]) == [((7, 3, 1, 0), b"payload")]


def test_longest_allowed_frame_is_accepted() -> None:
    cutter = frames.frames()
    payload = bytes(10 + (4 << 20))
    [(header, found)] = cutter.cut(frame(2, payload))
    assert (header, found) == ((2, len(payload)), payload)


def test_too_long_frame_is_an_error_from_its_header_on() -> None:
    cutter = frames.frames()
    with pytest.raises(
        frames.FrameError, match="a message of 4194315 bytes; allowed are at most 4194314"
    ):
        cutter.cut(struct.pack(">II", 1, 11 + (4 << 20)))


def test_too_long_message_is_an_error() -> None:
    cutter = frames.messages()
    with pytest.raises(
        frames.FrameError, match="a message of 4194305 bytes; allowed are at most 4194304"
    ):
        cutter.cut(struct.pack(">IIBB", 1 + (4 << 20), 1, 1, 0))
