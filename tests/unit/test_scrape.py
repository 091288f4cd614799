"""The requests of scrapers, and what is answered to others."""

from __future__ import annotations

import pytest

from isolcpus_dp.kubelet.scrape import Answer, Query, Refused, parse


def test_request_of_prometheus_is_understood() -> None:
    request = (
        b"GET /metrics?name[]=up HTTP/1.1\r\n"
        b"Host: localhost:9497\r\n"
        b"Accept: text/plain\r\n"
        b"accept: application/openmetrics-text;version=1.0.0\r\n"
        b"Accept-Encoding:  gzip \r\n"
        b"X-Empty:\r\n\r\n"
    )
    assert parse(request) == Query(
        path="/metrics",
        parameters="name[]=up",
        headers={
            "host": "localhost:9497",
            "accept": "text/plain, application/openmetrics-text;version=1.0.0",
            "accept-encoding": "gzip",
            "x-empty": "",
        },
    )


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0", b"GET /metrics HTTP/1.1"])
def test_request_needs_no_headers(line: bytes) -> None:
    assert parse(line + b"\r\n\r\n").headers == {}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /other HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST / HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"get / HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /\r\n\r\n", b"400 Bad Request"),
        (b"GET  / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nnothing\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n: value\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nName : value\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nName: " + b"x" * 9000, b"431 Request Header Fields Too Large"),
        (
            b"GET / HTTP/1.1\r\nName: " + b"x" * 9000 + b"\r\n\r\n",
            b"431 Request Header Fields Too Large",
        ),
    ],
)
def test_other_requests_are_refused(request_: bytes, status: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(request_)
    head, _, body = refused.value.message.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status + b"\r\n")
    assert body
    assert b"\r\nContent-Length: %d" % len(body) in head


def test_refused_method_names_those_allowed() -> None:
    with pytest.raises(Refused) as refused:
        parse(b"PUT /metrics HTTP/1.1\r\n\r\n")
    assert refused.value.message == (
        b"HTTP/1.0 405 Method Not Allowed\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Allow: GET, HEAD\r\n"
        b"Content-Length: 31\r\n\r\n"
        b"the method must be GET or HEAD\n"
    )


def test_head_is_answered_with_the_length_only() -> None:
    answer = Answer([("Content-Type", "text/plain")], b"up 1\n")
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
    assert answer.message(parse(b"GET / HTTP/1.1\r\n\r\n")) == head + b"up 1\n"
    assert answer.message(parse(b"HEAD / HTTP/1.1\r\n\r\n")) == head
