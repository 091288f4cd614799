"""The HTTP of a scrape: what a request asks for, and the bytes of an answer.

Only what a scraper sends: GET or HEAD, without a body, one request per connection. Nothing here
waits or reads a socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

# The end of a request, and its greatest length: that of a scraper is a line and a few headers.
END = b"\r\n\r\n"
MOST_BYTES = 8192

_PATHS = ("/metrics", "/")
_METHODS = ("GET", "HEAD")


class Refused(Exception):
    """The request is answered with an error; the text, one sentence, is the body of the answer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(_METHODS)))
        body = f"{text}\n".encode()
        self.message = _head(status, headers, body) + body


@dataclass(frozen=True)
class Query:
    """A request for the metrics."""

    path: str
    parameters: str = ""  # after the question mark
    headers: dict[str, str] = field(default_factory=dict)  # by name in lower case
    has_body: bool = True  # of the answer


@dataclass(frozen=True)
class Answer:
    """The metrics in the format that the query asked for."""

    headers: list[tuple[str, str]]
    body: bytes

    def message(self, query: Query) -> bytes:
        """The bytes to send."""
        return _head(HTTPStatus.OK, self.headers, self.body) + self.body * query.has_body


def parse(request: bytes) -> Query:
    """What a request asks for. Raises Refused."""
    if END not in request[: MOST_BYTES + len(END)]:
        raise Refused(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request is longer than {MOST_BYTES} bytes",
        )
    first, *lines = request.partition(END)[0].decode("latin-1").split("\r\n")
    method, target = _method_and_target(first)
    path, _, parameters = target.partition("?")
    if path not in _PATHS:
        raise Refused(HTTPStatus.NOT_FOUND, "not found: the metrics are at /metrics")
    if method not in _METHODS:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be GET or HEAD")
    return Query(path, parameters, _headers(lines), has_body=method == "GET")


def _method_and_target(line: str) -> tuple[str, str]:
    """Raises Refused."""
    words = line.split(" ")
    if len(words) != 3 or not all(words) or not words[2].startswith("HTTP/1."):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request line is not one of HTTP/1.0 or HTTP/1.1")
    method, target, _ = words
    return method, target


def _headers(lines: list[str]) -> dict[str, str]:
    """Raises Refused."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is not a name, a colon and a value")
        before = headers.get(name.lower())
        headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    return headers


def _head(status: HTTPStatus, headers: list[tuple[str, str]], body: bytes) -> bytes:
    # HTTP/1.0: the connection is closed after the answer.
    lines = [
        f"HTTP/1.0 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode("latin-1") + END
