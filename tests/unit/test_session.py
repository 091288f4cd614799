"""One connection to a runtime: its outcomes, against a runtime that answers as a test says."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.messages import Update
from isolcpus_dp.nri.outcome import Outcome
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE, TO_PLUGIN, TO_RUNTIME
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.session import Session
from isolcpus_dp.nri.ttrpc import CallError, Code, Connection
from isolcpus_dp.nri.unconfirmed import Unconfirmed

from .conftest import MakeUp

# What the runtime does with a connection while it answers RegisterPlugin.
OnRegister = Callable[[Connection], None]


@pytest.fixture
def session(make_up: MakeUp, tmp_path: Path) -> Session:
    present = machine.read(make_up("1x4x1", {2, 3}).root)
    rules = pinning.rules(present, Config(), present.present, frozenset())
    return Session(tmp_path / "nri.sock", tmp_path, rules, Unconfirmed(), Requested(), print)


@asynccontextmanager
async def runtime(socket: Path, on_register: OnRegister) -> AsyncIterator[None]:
    """Serves a runtime that calls `on_register` for each plugin that registers."""

    def connection() -> Connection:
        def answer(service: str, method: str, payload: bytes) -> bytes:
            assert method == "RegisterPlugin"
            on_register(made)
            return b""

        made = Connection(TO_RUNTIME, TO_PLUGIN, answer)
        return made

    server = await asyncio.get_running_loop().create_unix_server(connection, str(socket))
    try:
        yield
    finally:
        server.close()


async def ended(session: Session) -> Outcome:
    return await asyncio.wait_for(session.run(), 10)


async def test_absent_socket_is_nobody(session: Session) -> None:
    assert await ended(session) is Outcome.ABSENT


async def test_socket_without_a_listener_is_nobody(session: Session, tmp_path: Path) -> None:
    async with runtime(tmp_path / "nri.sock", lambda connection: None):
        pass
    (tmp_path / "nri.sock").touch()
    assert await ended(session) is Outcome.ABSENT


async def test_rejected_registration_is_refused_with_the_reason(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reject(connection: Connection) -> None:
        raise CallError(Code.UNKNOWN, "plugins are disabled")

    async with runtime(tmp_path / "nri.sock", reject):
        assert await ended(session) is Outcome.REFUSED
    assert caplog.messages == [
        "the runtime rejected the plugin: plugins are disabled; trying again in 5 s,"
        " or when it creates a new socket"
    ]


async def test_runtime_that_closes_before_synchronize_is_refused(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def close_later(connection: Connection) -> None:
        asyncio.get_running_loop().call_later(0.05, connection.close)

    async with runtime(tmp_path / "nri.sock", close_later):
        assert await ended(session) is Outcome.REFUSED
    assert caplog.messages == [
        "the runtime rejected the plugin: it closed the connection before it listed its"
        " containers; trying again in 5 s, or when it creates a new socket"
    ]


async def test_update_that_the_runtime_does_not_answer_is_given_up(
    session: Session,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isolcpus_dp.nri.session.UPDATE_SECONDS", 0.0)

    def update(connection: Connection) -> None:
        session.update(Update(api.ContainerUpdate(container_id="1"), "default/pod", "main"))
        asyncio.get_running_loop().call_later(0.1, connection.close)

    async with runtime(tmp_path / "nri.sock", update):
        await ended(session)
    assert "could not update container main of pod default/pod: no answer" in caplog.messages


async def serve(connection: Connection, *containers: api.Container) -> None:
    """Configures and synchronizes a plugin, as a runtime does."""
    configure = api.ConfigureRequest(runtime_name="r", runtime_version="1").SerializeToString()
    await connection.call(PLUGIN_SERVICE, "Configure", configure, 5)
    listed = api.SynchronizeRequest(containers=containers).SerializeToString()
    await connection.call(PLUGIN_SERVICE, "Synchronize", listed, 5)


@pytest.mark.parametrize(
    ("lasting", "outcome", "message"),
    [
        (0.0, Outcome.LEFT, "the runtime closed the connection"),
        (
            10.0,
            Outcome.DROPPED,
            "the runtime closed the connection N s after it had listed its containers; if it does"
            " that again, the next connection is made later",
        ),
    ],
)
async def test_runtime_that_closes_after_synchronize_left_or_dropped_the_plugin(
    session: Session,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lasting: float,
    outcome: Outcome,
    message: str,
) -> None:
    monkeypatch.setattr("isolcpus_dp.nri.session.LASTING_SECONDS", lasting)
    tasks = []

    async def serve_and_close(connection: Connection) -> None:
        await serve(connection)
        connection.close()

    def on_register(connection: Connection) -> None:
        tasks.append(asyncio.ensure_future(serve_and_close(connection)))

    caplog.set_level(logging.INFO)
    async with runtime(tmp_path / "nri.sock", on_register):
        assert await ended(session) is outcome
    await asyncio.gather(*tasks)
    assert caplog.messages[0] == "r 1 listed 0 containers: updating 0"
    assert [re.sub(r"\d\.\d s", "N s", text) for text in caplog.messages[1:]] == [message]


async def test_change_of_cpus_while_registering_is_not_a_rejection(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with runtime(tmp_path / "nri.sock", lambda connection: session.outdate(session.rules)):
        assert await ended(session) is Outcome.OUTDATED
    assert caplog.messages == []


async def test_change_of_cpus_while_connecting_is_outdated(
    session: Session, tmp_path: Path
) -> None:
    registered: list[Connection] = []
    async with runtime(tmp_path / "nri.sock", registered.append):
        session.outdate(session.rules)
        assert await ended(session) is Outcome.OUTDATED
    assert registered == []


def test_delay_doubles_while_the_runtime_drops_the_plugin() -> None:
    delays = [Outcome.DROPPED.retry_seconds(times) for times in (1, 2, 3, 4, 5, 6, 7, 8, 5000)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_delay_does_not_grow_after_other_outcomes() -> None:
    for times in (1, 9):
        assert Outcome.REFUSED.retry_seconds(times) == 5.0
        assert Outcome.PROTOCOL_ERROR.retry_seconds(times) == 5.0
        assert Outcome.LEFT.retry_seconds(times) == 0.1
        assert Outcome.OUTDATED.retry_seconds(times) == 0.0
