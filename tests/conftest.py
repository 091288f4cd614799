"""What holds for all tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

_END_SECONDS = 10  # in which cancelled tasks, and servers that are closing, end


@pytest.fixture(autouse=True)
async def no_task_outlives_its_test() -> AsyncIterator[None]:
    """All tests share an event loop: a task that one leaves is logged in another."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_END_SECONDS)
    assert not left
