"""The lock of a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.measure import lock
from isolcpus_dp.measure.lock import LockError


def test_second_measurement_is_told_to_wait(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with lock.hold(file):
        with pytest.raises(LockError) as caught, lock.hold(file):
            pass
        assert str(caught.value) == (
            f"another measurement is running and holds {file}: wait until it has ended"
        )


def test_lock_is_free_after_the_measurement(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), lock.hold(file):
        raise ZeroDivisionError
    with lock.hold(file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.symlink_to(tmp_path / "target")
    with pytest.raises(LockError, match=r"^could not open .*/lock: "), lock.hold(file):
        pass
    assert not (tmp_path / "target").exists()
