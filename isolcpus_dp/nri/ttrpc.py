"""ttrpc on an asyncio connection to a container runtime: answers calls and makes them.

Unary calls only, as NRI has no others. `plugin` implements the calls, `frames` splits the bytes
into messages. There is no maintained ttrpc library for Python.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from isolcpus_dp.api import ttrpc_pb2 as api
from isolcpus_dp.nri import frames
from isolcpus_dp.service.events import Event, emit

log = logging.getLogger(__name__)

_REQUEST, _RESPONSE = 1, 2


class Code(enum.IntEnum):
    """The gRPC status codes that are used here."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallError(Exception):
    """A call was answered, or will be answered, with an error status."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Lost(Exception):
    """The connection ended before the answer came."""


# From service, method and payload of a request: the payload of the response. Raises CallError.
Answer = Callable[[str, str, bytes], bytes]


class Connection(asyncio.Protocol):
    """Both logical connections on one socket: one for incoming calls, one for outgoing calls."""

    def __init__(self, incoming: int, outgoing: int, answer: Answer) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._answer = answer
        self._frames = frames.frames()
        self._messages = {incoming: frames.messages(), outgoing: frames.messages()}
        self._streams = itertools.count(1, 2)  # a caller's streams are odd
        self._waiting: dict[int, asyncio.Future[api.Response]] = {}
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.protocol_error = ""  # why the connection was closed, if the peer's data was invalid

    async def call(self, service: str, method: str, payload: bytes, seconds: float) -> bytes:
        """Makes a call; returns the payload of the response.

        Raises CallError, Lost, or asyncio.TimeoutError after `seconds`.
        """
        if self._transport is None or self.lost.is_set():
            raise Lost
        stream = next(self._streams)
        self._waiting[stream] = asyncio.get_running_loop().create_future()
        request = api.Request(
            service=service, method=method, payload=payload, timeout_nano=int(seconds * 1e9)
        )
        self._send(self._outgoing, stream, _REQUEST, request.SerializeToString())
        try:
            response = await asyncio.wait_for(self._waiting[stream], seconds)
        finally:
            del self._waiting[stream]
        if response.HasField("status") and response.status.code:
            raise CallError(response.status.code, response.status.message)
        return response.payload

    def close(self) -> None:
        """Closes the connection; `lost` is set when it is closed."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Lost())

    def data_received(self, data: bytes) -> None:
        try:
            for (connection, _), payload in self._frames.cut(data):
                # Messages on other logical connections are ignored.
                if connection in self._messages:
                    for header, body in self._messages[connection].cut(payload):
                        self._take(connection, header, body)
        except frames.FrameError as error:
            self.protocol_error = str(error)
            self.close()

    def _take(self, connection: int, header: frames.Header, data: bytes) -> None:
        _, stream, kind, _ = header
        if connection == self._incoming and kind == _REQUEST:
            self._send(connection, stream, _RESPONSE, self._response(data))
        elif connection == self._outgoing and kind == _RESPONSE and stream in self._waiting:
            self._end_call(self._waiting[stream], data)
        else:
            log.debug("a message of type %d on stream %d is ignored", kind, stream)

    def _response(self, data: bytes) -> bytes:
        try:
            request = api.Request.FromString(data)
            response = api.Response(
                payload=self._answer(request.service, request.method, request.payload)
            ).SerializeToString()
            if len(response) > frames.MOST_DATA:
                raise CallError(Code.RESOURCE_EXHAUSTED, "the response is too long for ttrpc")
        # Older versions of protobuf raise the second one for text that is not UTF-8.
        except (DecodeError, UnicodeDecodeError) as error:
            return _failure(Code.INVALID_ARGUMENT, f"unexpected message: {error}")
        except CallError as error:
            return _failure(error.code, str(error))
        except Exception as error:  # the caller must get an answer, also after a bug
            emit(
                log,
                Event.CALL_FAILED,
                "internal error while answering the runtime",
                exception=True,
            )
            return _failure(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return response

    def _end_call(self, waiting: asyncio.Future[api.Response], data: bytes) -> None:
        if waiting.done():
            return
        try:
            waiting.set_result(api.Response.FromString(data))
        except (DecodeError, UnicodeDecodeError) as error:  # as in `_response`
            waiting.set_exception(CallError(Code.UNKNOWN, f"invalid response: {error}"))

    def _send(self, connection: int, stream: int, kind: int, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(frames.message(connection, stream, kind, data))


def _failure(code: int, sentence: str) -> bytes:
    return api.Response(status=api.Status(code=code, message=sentence)).SerializeToString()
