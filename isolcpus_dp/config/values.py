"""The values of single keys: their text checked and turned into Python."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Union

from isolcpus_dp.host import cpulist

# An address and a port of TCP, or the path of a unix socket.
Listen = Union[tuple[str, int], Path]

# Kubernetes' rules for names (apimachinery's validation.go): DNS-1123 subdomain, qualified name.
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def check_resource_name(text: str) -> None:
    """Checks a name as the kubelet does when a plugin registers (IsExtendedResourceName).

    Raises ValueError.
    """
    domain, slash, name = text.partition("/")
    if not slash or not _NAME.fullmatch(name) or not _DOMAIN.fullmatch(domain):
        raise ValueError("is not a domain, a slash and a name")
    # The kubelet looks for it anywhere in the text, so also for example.kubernetes.io.
    if "kubernetes.io/" in text or text.startswith("requests."):
        raise ValueError("is reserved by Kubernetes")
    # It checks the name as the quota resource "requests.NAME", whose domain may have 253 letters.
    if len(domain) > 253 - len("requests.") or len(name) > 63:
        raise ValueError("is too long")


def resource_name(text: str, _last: int) -> str:
    check_resource_name(text)
    return text


def cpus(text: str, last: int) -> frozenset[int] | None:
    return None if text == "isolated" else cpulist.parse_configured(text, last)


def one_of(*choices: str) -> Callable[[str, int], str]:
    def parse(text: str, _last: int) -> str:
        if text not in choices:
            raise ValueError("is no such choice")
        return text

    return parse


def yes_or_no(text: str, _last: int) -> bool:
    return one_of("yes", "no")(text, _last) == "yes"


def listen(text: str, _last: int) -> Listen:
    if text.startswith("/"):
        return Path(text)
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("is no address to listen on")
    # Names are not looked up: the plugin would have to wait for a name server.
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        if ":" in address:
            # Whether there is such a zone, as in fe80::1%eth0, is seen when it is listened on.
            socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, address)
    except OSError:
        raise ValueError("is no address to listen on") from None
    return address, int(port)
