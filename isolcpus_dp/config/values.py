"""The types of values: how the text of a key is parsed, and what is allowed."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args

from isolcpus_dp.host import cpulist

# A TCP address and port, or the path of a unix socket.
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
        raise ValueError("not of the form domain/name")
    # The kubelet rejects this text anywhere in the name, such as in example.kubernetes.io.
    if "kubernetes.io/" in text or text.startswith("requests."):
        raise ValueError("reserved by Kubernetes")
    # The kubelet checks "requests." plus the name, whose domain may have 253 letters.
    if len(domain) > 253 - len("requests.") or len(name) > 63:
        raise ValueError("too long")


class Count(NamedTuple):
    """How many CPUs a pool takes."""

    cpus: int
    per_node: bool  # of each NUMA node, instead of the whole machine


class Value(NamedTuple):
    """A type of value."""

    parse: Callable[[str, int], Any]  # text, highest possible CPU; raises ValueError
    allowed: str  # completes an error message: use ...
    choices: tuple[str, ...] = ()  # if all allowed texts can be listed


def choice(literal: Any) -> Value:
    """One of the strings of a `Literal`."""
    return _one_of({text: text for text in get_args(literal)})


def _one_of(values: Mapping[str, Any]) -> Value:
    """One of the texts in `values`, which maps them to Python values."""

    def parse(text: str, _last: int) -> Any:
        if text not in values:
            raise ValueError("unknown value")
        return values[text]

    *others, last = values
    return Value(parse, f"{', '.join(others)} or {last}", tuple(values))


YES_OR_NO = _one_of({"yes": True, "no": False})


def _resource_name(text: str, _last: int) -> str:
    check_resource_name(text)
    return text


RESOURCE_NAME = Value(
    _resource_name,
    "a lower-case domain of at most 244 characters that is not kubernetes.io,"
    " a slash, and a name of at most 63 letters, digits, '-', '_' and '.',"
    " such as windriver.com/isolcpus",
)


def _cpus(text: str, last: int) -> frozenset[int] | None:
    return None if text == "isolated" else cpulist.parse_configured(text, last)


CPUS = Value(_cpus, "isolated, or a CPU list such as 2-3,6-7")


def _numbers(text: str, _last: int) -> frozenset[int]:
    try:
        return cpulist.parse(text)
    except cpulist.CpuListError as error:
        raise ValueError(f"'{error.part}' is neither a number nor a range") from error


NODES = Value(_numbers, "the numbers of NUMA nodes, such as 0 or 0,2-3")
PACKAGES = Value(_numbers, "the numbers of packages, such as 0 or 0-1")

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# The kernel's rules for the name of a network interface (dev_valid_name()).
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^/:\s]{1,15}")


def _device(text: str, _last: int) -> str:
    # The kernel writes addresses in lower case.
    if _PCI_ADDRESS.fullmatch(text.lower()):
        return text.lower()
    if ":" in text:
        raise ValueError("not a PCI address with domain, bus, device and function")
    if not _INTERFACE.fullmatch(text):
        raise ValueError("not the name of a network interface")
    return text


DEVICE = Value(
    _device, "a PCI address such as 0000:3b:00.0, or the name of a network interface such as eth0"
)


def _count(text: str, _last: int) -> Count:
    match = re.fullmatch(r"([1-9][0-9]{0,3})(/node)?", text)
    if not match:
        raise ValueError("not a number of CPUs")
    return Count(int(match[1]), match[2] is not None)


COUNT = Value(_count, "a number of CPUs such as 8, or 8/node for so many of each NUMA node")


def _listen(text: str, _last: int) -> Listen:
    if text.startswith("/"):
        return Path(text)
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("not an address to listen on")
    # Host names are not resolved: the daemon would have to wait for a name server.
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        if ":" in address:
            # The zone in fe80::1%eth0 is checked when the daemon listens on the address.
            socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, address)
    except OSError:
        raise ValueError("not an address to listen on") from None
    return address, int(port)


def _directory(text: str, _last: int) -> Path:
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return Path(text)


DIRECTORY = Value(_directory, "an absolute path such as /var/lib/k0s/kubelet")

LISTEN = Value(
    _listen, "an IP address and a port such as 127.0.0.1:9497, or the path of a unix socket"
)
