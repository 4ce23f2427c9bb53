"""One file from a server that is not trusted: bounded in size, in time and in where it leads.

A server may send without end, send a byte a minute, announce one length and send another, answer
compressed, or redirect to a local file. Each is one `ProbeError`; credentials are sent to the host
that they were given for and shown nowhere.
"""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from clipq.errors import ProbeError
from clipq.files import replace_atomically

__all__ = ["Address", "download"]

_WINDOW_SECONDS = 60.0  # in each of which at least so much must arrive
_LEAST_BYTES = 64 << 10
_REDIRECTS = 5
_BLOCK = 1 << 20
_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A folder on a server.

    Args:
        parts: of its URL, without user and password.
        authorization: value of that header; "" for none.
    """

    parts: SplitResult
    authorization: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``https://USER:PASSWORD@HOST:PORT/PATH?QUERY``, of which all but the host may lack.

        Raises:
            ProbeError: it is no such URL.

        >>> str(Address.parse("https://ada:enigma@example.org/birds?token=x").below("0.tar"))
        'https://example.org/birds/0.tar?token=x'
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError as error:
            raise _no_address(url, str(error)) from error
        if parts.scheme not in _SCHEMES:
            raise _no_address(url, f"scheme {parts.scheme!r}")
        if not host or not url.isprintable() or " " in url:
            raise _no_address(url, "it has no host, or characters that are none of a URL")
        userinfo = parts.netloc.rpartition("@")[0]
        user, _, password = userinfo.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        place = f"[{host}]" if ":" in host else host
        place += "" if port is None else f":{port}"
        path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        return cls(
            SplitResult(parts.scheme, place, path, parts.query, ""),
            f"Basic {base64.b64encode(pair).decode()}" if userinfo else "",
        )

    def below(self, *names: str) -> Address:
        """Return the address of what lies below; a query, which may be a key, stays."""
        path = "/".join([self.parts.path, *(quote(name, safe="/") for name in names)])
        return Address(self.parts._replace(path=path), self.authorization)

    def __str__(self) -> str:
        return urlunsplit(self.parts)

    def __repr__(self) -> str:
        return f"Address({str(self.parts.netloc)!r})"


def download(address: Address, path: Path, *, most: int, required: bool) -> int:
    """Fetch a file, whole or not at all; return its size in bytes, 0 where there is none.

    Args:
        address: of the file.
        path: to write.
        most: bytes that it may have.
        required: whether it is an error that the server has no such file (status 404).

    Raises:
        ProbeError: it cannot be fetched, is cut off, larger than `most` or than the free space, or
            arrives too slowly.
        CacheError: it cannot be written.
    """
    watch = _Watch()
    try:
        with watch, _opener(watch, address).open(_request(address), timeout=_WINDOW_SECONDS) as got:
            expected = _announced(got, address, most)
            path.parent.mkdir(parents=True, exist_ok=True)
            if expected is not None and expected > shutil.disk_usage(path.parent).free:
                raise ProbeError(
                    f"{address} has {expected:,} bytes, more than are free on the disk of {path}",
                    hint="free space; shards that are there are kept",
                )

            def write(temporary: Path) -> None:
                written = 0
                with temporary.open("wb") as stream:
                    for block in _blocks(got, address, watch):
                        written += len(block)
                        if written > most:
                            raise _too_large(address, f"more than {most:,}", most)
                        stream.write(block)
                if expected is not None and written != expected:
                    raise _cut_off(address, f"{written:,} of {expected:,} bytes")

            replace_atomically(path, write)
            return path.stat().st_size
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404 and not required:
                return 0
            raise _unreachable(address, f"HTTP Error {error.code}: {error.reason!s:.200}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unreachable(address, watch.complaint or str(error) or repr(error)) from None


class _Watch:
    """Ends a connection over which too little arrives, whatever is being waited for.

    A time limit of the socket alone is none: it starts anew with every byte.
    """

    def __init__(self) -> None:
        self.received = 0
        self.complaint = ""
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for connection in self._sockets:
            # Answers that redirected are closed by nobody.
            if (descriptor := connection.detach()) >= 0:
                socket.close(descriptor)

    def add(self, connection: socket.socket) -> None:
        """Watch a connection that was just made."""
        self._sockets.append(connection)

    def _look(self) -> None:
        before = 0
        while not self._done.wait(_WINDOW_SECONDS):
            if self.received - before < _LEAST_BYTES:
                self.complaint = (
                    f"{self.received - before:,} bytes in {_WINDOW_SECONDS:g} s are too few"
                )
                for connection in self._sockets:
                    _shut(connection)
                return
            before = self.received


def _shut(connection: socket.socket) -> None:
    try:
        # Of a TLS connection too the socket itself: whoever waits for it sees its end.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # closed already


def _opener(watch: _Watch, address: Address) -> urllib.request.OpenerDirector:
    """Return what opens http and https alone, and tells the watch of each connection."""

    class Http(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class Https(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Http, req)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Https, req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        HttpHandler(),
        HttpsHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(address),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server a few times, to the web only, and never out of an encrypted connection."""

    max_redirections = _REDIRECTS
    max_repeats = _REDIRECTS

    def __init__(self, address: Address) -> None:
        self._address = address

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        to = Address.parse(newurl)
        if self._address.parts.scheme == "https" and to.parts.scheme != "https":
            raise _unreachable(self._address, f"it leads from https to {to}")
        same = to.parts[:2] == self._address.parts[:2]
        kept = self._address.authorization if same else ""
        return _request(Address(to.parts, to.authorization or kept))


def _request(address: Address) -> urllib.request.Request:
    request = urllib.request.Request(str(address), headers={"Accept-Encoding": "identity"})
    if address.authorization:
        request.add_unredirected_header("Authorization", address.authorization)
    return request


def _announced(got: Any, address: Address, most: int) -> int | None:
    """Return the length that the server announces; None where it announces none."""
    encoding = (got.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise _unreachable(address, f"it comes compressed ({encoding!r}), which was not asked for")
    lengths = set(got.headers.get_all("Content-Length") or ())
    if not lengths:
        return None
    length = lengths.pop().strip()
    if lengths or not (length.isascii() and length.isdigit() and len(length) < 20):
        raise _unreachable(address, f"its length is announced as {length[:40]!r}")
    if int(length) > most:
        raise _too_large(address, f"{int(length):,}", most)
    return int(length)


def _blocks(got: Any, address: Address, watch: _Watch) -> Iterator[bytes]:
    with _network(address, watch):
        # What has arrived, not a whole block: the watch is to see that something does.
        while block := got.read1(_BLOCK):
            watch.received += len(block)
            yield block
        if watch.complaint:  # an end that we made
            raise _unreachable(address, watch.complaint)


@contextmanager
def _network(address: Address, watch: _Watch) -> Iterator[None]:
    """Tell errors of the network from those of the disk, which the writer meets."""
    try:
        yield
    except http.client.IncompleteRead as error:
        raise _cut_off(address, watch.complaint or str(error)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unreachable(address, watch.complaint or str(error) or repr(error)) from None


def _no_address(url: str, why: str) -> ProbeError:
    return ProbeError(
        f"{url[:200]!r} is no address of shards: {why}",
        hint="write webdataset:https://HOST/PATH, characters that a URL lacks as %XX",
    )


def _too_large(address: Address, size: str, most: int) -> ProbeError:
    return ProbeError(
        f"{address} has {size} bytes; at most {most:,} are taken",
        hint="check the address; fetch larger files with another tool, and name their folder in "
        "`source`",
    )


def _cut_off(address: Address, how: str) -> ProbeError:
    return ProbeError(
        f"{address} was cut off: {how}",
        hint="run `clipq probe fetch` again: shards that are there are kept",
    )


def _unreachable(address: Address, why: str) -> ProbeError:
    return ProbeError(
        f"{address} cannot be fetched: {why}",
        hint="check the address; on a machine without network, fetch it elsewhere (`clipq probe "
        "fetch` there), copy .clipq/downloads here, or name a local folder in `source`",
    )
