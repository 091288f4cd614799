"""What the daemons share when they read their configuration again."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.service import reload
from isolcpus_dp.service.reload import Published


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The signals that the process has handled."""
    handled: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: handled.append(number))
    yield handled
    reload.release()
    signal.signal(signal.SIGHUP, before)


def test_held_signal_is_delivered_when_it_is_released(signals: list[int]) -> None:
    reload.hold()
    signal.raise_signal(signal.SIGHUP)
    assert signals == []
    reload.release()
    assert signals == [signal.SIGHUP]


def test_reload_is_announced_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 12_345_678_999)
    assert reload.began() == "RELOADING=1\nMONOTONIC_USEC=12345678"


def test_wrong_configuration_is_logged_with_its_sentence(caplog: pytest.LogCaptureFixture) -> None:
    reload.failed(ValueError("x.conf: [Plugin] Mixed=on: unknown value; use yes or no"))
    assert caplog.messages == [
        "x.conf: [Plugin] Mixed=on: unknown value; use yes or no; the earlier configuration stays"
        " in force"
    ]


def test_published_fingerprint_is_replaced(tmp_path: Path) -> None:
    Published(tmp_path).write("00000001")
    Published(tmp_path).write("00000002")
    assert (tmp_path / "configuration").read_text() == "00000002\n"
    assert [file.name for file in tmp_path.iterdir()] == ["configuration"]


def test_fingerprint_that_cannot_be_published_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Published(tmp_path / "absent").write("00000001")
    [message] = caplog.messages
    assert re.match(f"could not write {tmp_path}/absent/configuration: No such file", message)


def test_fingerprint_that_cannot_be_removed_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "configuration"
    file.mkdir()  # unlink(2) fails
    Published(tmp_path).remove()
    assert caplog.messages == [f"could not remove {file}: Is a directory"]


def test_nothing_is_published_without_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Published(None).write("00000001")
    assert list(tmp_path.iterdir()) == []
