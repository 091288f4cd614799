"""Failures of a daemon that goes on: what is logged and notified, and when it tries again."""

from __future__ import annotations

import logging

import pytest

from isolcpus_dp.service.failures import Failures


class Systemd:
    """Keeps what a daemon notifies systemd of."""

    def __init__(self) -> None:
        self.notified: list[str] = []

    def notify(self, state: str) -> None:
        self.notified.append(state)


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def failures(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> Failures:
    caplog.set_level(logging.INFO)
    return Failures(systemd)  # type: ignore[arg-type]


def test_delay_doubles_up_to_ten_seconds(failures: Failures) -> None:
    delays = [failures.report("no descriptors") for _ in range(9)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    failures.end()
    assert failures.report("no descriptors") == 0.1


def test_reason_is_logged_when_it_is_news(
    failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    for reason in ("no descriptors", "no descriptors", "no memory", "no descriptors"):
        failures.report(reason)
    failures.end()
    failures.report("no descriptors")
    reasons = [message.partition(";")[0] for message in caplog.messages]
    assert reasons == ["no descriptors", "no memory", "no descriptors", "no descriptors"]
    assert caplog.messages[0] == "no descriptors; trying again, at intervals of up to 10 s"


def test_status_has_the_first_line_of_a_traceback(failures: Failures, systemd: Systemd) -> None:
    failures.report("internal error\nTraceback ...\nNameError")
    assert systemd.notified == ["READY=1\nWATCHDOG=1\nSTATUS=Failed, trying again: internal error"]
