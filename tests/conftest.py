"""What holds for all tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

_END_SECONDS = 10  # in which cancelled tasks, and servers that are closing, end
# Before Python 3.10, an asyncio.Event that another fixture makes needs the current event loop, and
# there is none after a fixture that is a coroutine.
_EVENTS_NEED_A_LOOP = sys.version_info < (3, 10)


@pytest.fixture(autouse=not _EVENTS_NEED_A_LOOP)
async def no_task_outlives_its_test() -> AsyncIterator[None]:
    """All tests share an event loop: a task that one leaves is logged in another."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_END_SECONDS)
    assert not left
