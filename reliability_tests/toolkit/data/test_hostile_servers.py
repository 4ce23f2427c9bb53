"""A server of shards that means harm, or is broken: one message, no credential, nothing left."""

from __future__ import annotations

import base64
import gzip
import socketserver
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipq.data import download as module
from clipq.data.download import Address, download
from clipq.data.fetch import download_folder, fetch_shards
from clipq.errors import ProbeError

SECRET = "hunter2-secret"
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def serving(*answers):
    """A server that sends `answers` in turn, then the last again; bytes, or what writes them."""
    asked = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            request = b""
            while b"\r\n\r\n" not in request:
                request += self.request.recv(65536) or b"\r\n\r\n"
            asked.append(request.decode("latin-1"))
            answer = answers[min(len(asked), len(answers)) - 1]
            with suppress(OSError):  # the client has had enough
                self.wfile.write(answer) if isinstance(answer, bytes) else answer(self.wfile)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def endless(stream):
    stream.write(OK + b"\r\n")
    while True:
        stream.write(bytes(1 << 16))


def a_byte_at_a_time(stream):
    stream.write(OK + b"Content-Length: 99\r\n\r\n")
    for _ in range(200):
        stream.write(b"x")
        time.sleep(0.05)


def a_header_at_a_time(stream):
    stream.write(OK)
    for number in range(200):
        stream.write(f"X-{number}: y\r\n".encode())
        time.sleep(0.05)


def a_chunk_size_at_a_time(stream):
    stream.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        stream.write(b"0")
        time.sleep(0.05)


BODY = gzip.compress(bytes(1 << 20))
ANSWERS = {
    "sends without end": (endless, "has more than 1,000 bytes; at most 1,000 are taken"),
    "announces too much": (OK + b"Content-Length: 9999999\r\n\r\n", "has 9,999,999 bytes; at most"),
    "sends less": (OK + b"Content-Length: 9\r\n\r\nabc", r"was cut off"),
    "ends in a chunk": (
        OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc", "was cut off|cannot be fetched"
    ),
    "a length below zero": (OK + b"Content-Length: -5\r\n\r\nabc", "its length is announced as"),
    "two lengths": (
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "its length is announced as"
    ),
    "a length of digits without end": (
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "its length is announced as"
    ),
    "compressed": (OK + b"Content-Encoding: gzip\r\n\r\n" + BODY, "comes compressed"),
    "no status": (b"\x00\xff nonsense\r\n\r\n", "cannot be fetched"),
    "a status without a number": (b"HTTP/1.1 abc OK\r\n\r\n", "cannot be fetched"),
    "nothing": (b"", "cannot be fetched"),
    "a header without end": (OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "cannot be fetched"),
    "a thousand headers": (OK + b"X: y\r\n" * 1000 + b"\r\n", "cannot be fetched"),
    "not allowed": (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "HTTP Error 401"),
    "to a file": (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n", "not allowed"),
    "to ftp": (b"HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/x\r\n\r\n", "scheme 'ftp'"),
    "to itself": (b"HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n", "infinite loop"),
    "to nowhere": (b"HTTP/1.1 302 F\r\nLocation: http://[\r\n\r\n", "cannot be fetched|no address"),
    "a byte at a time": (a_byte_at_a_time, "bytes in 0.3 s are too few"),
    "a header at a time": (a_header_at_a_time, "bytes in 0.3 s are too few"),
    "a chunk's size at a time": (a_chunk_size_at_a_time, "bytes in 0.3 s are too few"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_cannot_be_used_is_one_message_and_leaves_nothing(
    name, tmp_path, monkeypatch
):
    answer, message = ANSWERS[name]
    monkeypatch.setattr(module, "_WINDOW_SECONDS", 0.3)
    with serving(answer) as (host, _):
        address = Address.parse(f"http://ada:{SECRET}@{host}/birds?token={SECRET}").below("0.tar")
        with pytest.raises(ProbeError, match=message) as caught:
            download(address, tmp_path / "0.tar", most=1000, required=True)
    told = repr(caught.value) + str(caught.value) + repr(address)
    assert SECRET not in told
    assert "ada" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_sent_to_its_host_and_a_query_kept(tmp_path):
    body = OK + b"Content-Length: 3\r\n\r\nabc"
    with serving(body) as (other, asked_other):
        away = f"HTTP/1.1 302 F\r\nLocation: http://{other}/y\r\n\r\n".encode()
        with serving(body, away) as (host, asked):
            address = Address.parse(f"http://ada:{SECRET}@{host}/birds/?key=1").below(
                "a b", "0.tar"
            )
            assert download(address, tmp_path / "0.tar", most=3, required=True) == 3
            assert download(address, tmp_path / "1.tar", most=3, required=True) == 3
    basic = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    assert asked[0].startswith("GET /birds/a%20b/0.tar?key=1 HTTP")
    assert f"Authorization: Basic {basic}" in asked[0]
    assert "Authorization" not in asked_other[0]


def test_what_is_optional_may_lack_and_a_full_disk_is_named(tmp_path, monkeypatch):
    with serving(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") as (host, _):
        address = Address.parse(f"http://{host}/x")
        assert download(address, tmp_path / "x", most=9, required=False) == 0
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 2}))
    full = pytest.raises(ProbeError, match="more than are free on the disk")
    with serving(OK + b"Content-Length: 3\r\n\r\nabc") as (host, _), full:
        download(Address.parse(f"http://{host}/x"), tmp_path / "x", most=9, required=True)


def test_a_split_leads_nowhere_else_and_folders_hold_no_password(tmp_path):
    for split in ("../../x", "", "/etc", "a/b", ".."):
        with pytest.raises(ProbeError, match="has no split"):
            fetch_shards("http://127.0.0.1:1/x", split, tmp_path)
    urls = ["https://example.org/x", f"https://ada:{SECRET}@example.org/x",
            f"https://example.org/x?token={SECRET}"]  # fmt: skip
    assert len({download_folder(url, tmp_path) for url in urls}) == 1
    assert SECRET not in str(download_folder(urls[1], tmp_path))
    assert download_folder("https://example.org/x?rev=2", tmp_path) != download_folder(
        urls[0], tmp_path
    )


@given(rest=st.text(max_size=40))
@settings(max_examples=300)
def test_any_address_is_understood_or_refused(rest):
    try:
        address = Address.parse(f"https://{rest}")
    except ProbeError:
        return
    assert "@" not in address.parts.netloc
    assert str(address).isprintable()
