"""Kubelets that accept and never answer, answer garbage, close halfway, or send too much."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Shorter times than those of the daemon, so that a test does not take seconds: for an answer, and
# until a process that does not answer is reported.
IMPATIENT = """
from isolcpus_dp.kubelet import registration
setattr(registration, "_REGISTER_SECONDS", 0.2)
"""
SUSPICIOUS = """
from isolcpus_dp.host import sockets
setattr(sockets, "_LONGEST_DELAY_TO_LISTEN", 0.01)
"""

REQUEST = "/v1beta1.DevicePlugin/Allocate"
TEN_MIB = 10 << 20


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def answer_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 16)
    await reader.read()


async def close_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # The first bytes of HTTP/2 SETTINGS, the rest of which never comes.
    await reader.readexactly(24)
    writer.write(b"\0\0\6\4")
    await writer.drain()


async def send_ten_mib(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(b"\0" * TEN_MIB)
        await writer.drain()


@contextlib.asynccontextmanager
async def listening(host: Host, serve: Serve) -> AsyncIterator[None]:
    """A process that listens on the kubelet's socket."""

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve_and_close, str(host.kubelet_socket))
    yield
    server.close()


@pytest.mark.parametrize("serve", [answer_garbage, close_halfway, send_ten_mib])
async def test_kubelet_that_speaks_no_grpc_is_reported_once(
    host: Host, start_kubelet: StartKubelet, serve: Serve
) -> None:
    reason = f"the process that listens on {host.kubelet_socket} does not answer"
    async with supervisor(host, "serve", prelude=SUSPICIOUS).running() as daemon:
        async with listening(host, serve):
            await daemon.until(lambda run: run.status == f"Waiting for the kubelet: {reason}")
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1
    assert host.log.count(f"{reason}; waiting for the kubelet\n") == 1
    assert "Traceback" not in host.log


async def test_kubelet_that_never_answers_ends_each_worker(
    host: Host, start_kubelet: StartKubelet
) -> None:
    async with supervisor(host, "serve", prelude=IMPATIENT).running() as daemon:
        async with listening(host, never_answer):
            await daemon.until(lambda run: len(run.workers) == 3)
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1
    assert "the kubelet did not answer the registration within 0 s" in host.log
    assert "Traceback" not in host.log


@contextlib.asynccontextmanager
async def answering(host: Host, answer: bytes) -> AsyncIterator[None]:
    """A kubelet that answers each registration with these bytes."""

    async def register(request: bytes, context: object) -> bytes:
        return answer

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(register)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler})]
    )
    server.add_insecure_port(f"unix:{host.kubelet_socket}")
    await server.start()
    yield
    await server.stop(None)


async def test_answer_of_ten_mib_is_a_rejection(host: Host, start_kubelet: StartKubelet) -> None:
    async with supervisor(host, "serve").running() as daemon:
        async with answering(host, bytes(TEN_MIB)):
            await daemon.until(lambda run: run.status.startswith("Rejected by the kubelet: "))
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1
    rejected = f"the kubelet rejected the registration of {RESOURCE}: .*larger than max"
    assert re.search(rf"^{rejected}.*; trying again every 5 s$", host.log, re.MULTILINE)
    assert "Traceback" not in host.log


async def test_answer_that_is_no_message_counts_as_accepted(
    host: Host, start_kubelet: StartKubelet
) -> None:
    """The kubelet has nothing to say in it: what counts is that it opens the stream."""
    prelude = "from isolcpus_dp.kubelet import daemon\nsetattr(daemon, '_STREAM_SECONDS', 0.1)\n"
    async with supervisor(host, "serve", prelude=prelude).running() as daemon:
        async with answering(host, b"\xff\xff"):
            await until(lambda: "but opened no ListAndWatch stream within" in host.log)
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1
    assert "Traceback" not in host.log


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [(bytes(TEN_MIB), "larger than max"), (b"\xff\xff", "(?i)message")],
    ids=["10 MiB", "garbage"],
)
async def test_request_that_cannot_be_read_gets_an_error(
    host: Host,
    kubelet: Kubelet,
    registered: Supervisor,
    request_bytes: bytes,
    reason: str,
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        call: Any = channel.unary_unary(REQUEST)
        with pytest.raises(grpc.aio.AioRpcError, match=reason):
            await call(request_bytes)
    await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    assert kubelet.pods == {"owner": "Running"}
    assert len(registered.workers) == 1
    assert "Traceback" not in host.log


async def test_client_that_closes_halfway_changes_nothing(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    _, writer = await asyncio.open_unix_connection(str(host.endpoint))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0")
    await writer.drain()
    writer.close()
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
    assert len(registered.workers) == 1
    assert kubelet.allocatable(RESOURCE) == 4
    assert "Traceback" not in host.log
