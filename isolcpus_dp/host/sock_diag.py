"""Which unix sockets a process listens on, from the kernel's socket monitoring (sock_diag(7)).

/proc/net/unix is no evidence: a user can name a socket like the line of another one, and bind one
at the same path in a mount namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_VFS, _UNIX_DIAG_VFS = 2, 1
_TCP_LISTEN = 10

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, padding, states, inode, show, cookie
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ATTRIBUTES_AT = _HEADER.size + 16  # after struct unix_diag_msg


def listens(path: Path) -> bool:
    """Whether a process of this network namespace listens on the socket at the path.

    Raises OSError if the kernel does not say.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return (status.st_ino & 0xFFFFFFFF, device) in _listening()


def _listening() -> Iterator[tuple[int, int]]:
    """Inode number, to 32 bits, and device of the files of all unix sockets that listen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as monitoring:
        request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << _TCP_LISTEN, 0, _UDIAG_SHOW_VFS, 0, 0)
        length = _HEADER.size + len(request)
        monitoring.send(
            _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + request
        )
        while True:
            data = monitoring.recv(1 << 16)
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", data, _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                if kind == _NLMSG_DONE:
                    return
                yield from _files(data[:length])
                data = data[_aligned(length) :]


def _files(message: bytes) -> Iterator[tuple[int, int]]:
    """Inode number and device of the file of the socket that a message describes."""
    at = _ATTRIBUTES_AT
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _UNIX_DIAG_VFS:
            inode, device = struct.unpack_from("=II", message, at + _ATTRIBUTE.size)
            yield inode, device
        at += max(_aligned(length), _ATTRIBUTE.size)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
