"""Registers the plugin with the kubelet: one call, and the meaning of its answer."""

from __future__ import annotations

from pathlib import Path

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc

# The plugin's options, in the registration and in GetDevicePluginOptions.
OPTIONS = api.DevicePluginOptions(get_preferred_allocation_available=True)

# Longer than the 10 s in which the kubelet dials the plugin: its error says more than a timeout.
_REGISTER_SECONDS = 15.0


class Refused(Exception):
    """The kubelet answered a registration with an error; the message is the kubelet's."""


class Unanswered(Exception):
    """No process listens on the kubelet's socket, or it ended before it answered; one sentence."""


class Left(Exception):
    """The kubelet went away; the message is one sentence."""


class Connection:
    """A connection to the kubelet's socket. A context manager.

    It can be prepared before the kubelet exists: the first call connects. It is used for one
    kubelet: gRPC would delay further attempts to connect.
    """

    def __init__(self, path: Path) -> None:
        # gRPC would otherwise reuse a connection to an earlier kubelet at this path.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"unix:{path}", options=options)
        self._stub = rpc.RegistrationStub(self._channel)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes it; it may be closed already."""
        await self._channel.close()

    async def register(self, resource_name: str, endpoint: str) -> None:
        """Registers the plugin that serves `endpoint`, a file name beside the kubelet's socket.

        Raises Refused, Unanswered, or Left if the kubelet takes too long.
        """
        request = api.RegisterRequest(
            version="v1beta1", endpoint=endpoint, resource_name=resource_name, options=OPTIONS
        )
        try:
            await self._stub.Register(request, timeout=_REGISTER_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise Unanswered("the kubelet ended before it answered the registration") from error
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Left(
                    f"the kubelet did not answer the registration within {_REGISTER_SECONDS:.0f} s"
                ) from error
            # As one line: for systemd, each line of a notification is a separate assignment.
            raise Refused(" ".join((error.details() or error.code().name).split())) from error
