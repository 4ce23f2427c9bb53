"""Where a store is, and the only place that holds its password.

Whatever is shown of a store URL comes from here: `StoreURL.shown`, its `repr`, and texts of other
libraries that went through `StoreURL.hide`. A URL that cannot be read is never shown beyond its
scheme, since nobody knows which part of it is the password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

from clipq.errors import StoreError
from clipq.redaction import HIDDEN, is_secret_name, redacted

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["StoreURL", "parse_url"]

_FORMS = "sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE"
_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}")
_HOST = re.compile(r"[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]|%2[Ff][A-Za-z0-9._%-]*")
_FILE_NAME = re.compile(r"[\w./-]+\.(db|sqlite3?)")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SHORTEST = 4  # a shorter secret cannot be told from ordinary text


@dataclass(frozen=True, slots=True, repr=False)
class StoreURL:
    """A store's address.

    Args:
        dialect: ``sqlite`` or ``postgresql``.
        shown: the URL without its secrets, for every message.
        path: of an SQLite file, absolute; None for a server.
        user, host, port, database, parameters: of a server.
        secrets: passwords by the name of their connection parameter; never shown.
    """

    dialect: str
    shown: str
    path: Path | None = None
    user: str | None = None
    host: str | None = None
    port: int | None = None
    database: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"StoreURL({self.shown!r})"

    def __str__(self) -> str:
        return self.shown

    def engine_url(self) -> URL:
        """Return what SQLAlchemy connects to, without secrets: those go in as arguments."""
        from sqlalchemy import URL

        if self.path is not None:
            return URL.create("sqlite", database=str(self.path))
        return URL.create(
            "postgresql+psycopg",
            username=self.user,
            host=self.host,
            port=self.port,
            database=self.database,
            query=dict(self.parameters),
        )

    def hide(self, text: str) -> str:
        """Return another library's message without this store's secrets."""
        forms = {
            form
            for secret in self.secrets.values()
            for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
            if form
        }
        if any(len(form) < _SHORTEST and form in text for form in forms):
            return "(a message that may hold the password is not shown)"
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        return redacted(text)


def parse_url(text: str, *, root: Path) -> StoreURL:
    """Return the store that `text` names.

    Args:
        text: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE``, in
            one line; space around it is dropped.
        root: what a relative SQLite path is relative to.

    Raises:
        StoreError: not such a URL. The message shows no more of it than its scheme.
    """
    text = text.strip()
    if not text.isprintable():
        # Two lines are two values, pasted or left in a secret: neither is guessed to be meant.
        lines = len(text.splitlines())
        held = f"{lines} lines" if lines > 1 else "a character that cannot be printed"
        raise StoreError(
            f"what is given as a store URL (not shown) holds {held}",
            hint=f"give one address and nothing else, in one line: {_FORMS}; in a user or password "
            "such a character is written %XX",
        )
    scheme, separator, rest = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        shown = f"{text!r} is" if _FILE_NAME.fullmatch(text) else "what is given (not shown) is"
        raise StoreError(f"{shown} no store URL", hint=f"write {_FORMS}")
    if scheme == "sqlite":
        return _sqlite(rest, root)
    if scheme in _POSTGRESQL:
        return _postgresql(rest)
    raise StoreError(f"no store of scheme {scheme!r}", hint=f"write {_FORMS}")


def _sqlite(rest: str, root: Path) -> StoreURL:
    if not rest.startswith("/"):
        raise StoreError(
            "a store URL sqlite://*** names a host, which SQLite has none of",
            hint="three slashes before a relative path, four before an absolute one: "
            "sqlite:///.clipq/history.db, sqlite:////srv/clipq/history.db",
        )
    name = rest[1:]
    if name in ("", ":memory:") or name.endswith("/"):
        raise StoreError(
            f"the store URL sqlite:///{name} names no file", hint="write sqlite:///PATH"
        )
    if "?" in name or "\0" in name:
        raise StoreError(
            "a store URL sqlite:///*** with parameters", hint="write sqlite:///PATH and no more"
        )
    path = Path(os.path.realpath(Path(root, name)))  # `resolve` raises where a link is a loop
    return StoreURL("sqlite", f"sqlite:///{path}", path=path)


def _postgresql(rest: str) -> StoreURL:
    if "#" in rest:
        raise _unreadable("'#' in it")
    address, _, query = rest.partition("?")
    authority, slash, database = address.partition("/")
    if "@" in database or "@" in query.partition("=")[0] or authority.count("@") > 1:
        raise _unreadable("an '@' where none belongs")
    userinfo, at, place = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    host, port = _place(place)
    if not slash or not database or "/" in database:
        raise _unreadable("no database, or more than one, after the host")
    parameters, secrets = _parameters(query)
    if colon and "password" in secrets:
        raise _unreadable("two passwords")
    if colon:
        secrets["password"] = _decoded(password)
    shown = dict(parameters)
    shown |= dict.fromkeys((name for name in secrets if name != "password" or not colon), HIDDEN)
    tail = "&".join(f"{name}={value}" for name, value in sorted(shown.items()))
    return StoreURL(
        "postgresql",
        f"postgresql://{user}{f':{HIDDEN}' if colon else ''}{at}{place}/{database}"
        + (f"?{tail}" if tail else ""),
        user=_decoded(user) or None,
        host=host or None,
        port=port,
        database=_decoded(database),
        parameters=parameters,
        secrets=secrets,
    )


def _place(text: str) -> tuple[str, int | None]:
    bracket = text.rfind("]")
    colon = text.find(":", bracket + 1)
    host, port = (text, "") if colon < 0 else (text[:colon], text[colon + 1 :])
    if not _HOST.fullmatch(host):
        raise _unreadable("a host that is none")
    if colon >= 0 and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise _unreadable("a port that is no number from 1 to 65535")
    return _decoded(host).strip("[]"), int(port) if port else None


def _parameters(query: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the URL's parameters: those that may be shown, and the secret ones."""
    shown: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        name = _decoded(name)
        if not equals or not re.fullmatch(r"[a-z_]+", name) or name in shown or name in secrets:
            raise _unreadable("a parameter that is not NAME=VALUE, or is given twice")
        (secrets if is_secret_name(name) else shown)[name] = _decoded(value)
    return shown, secrets


def _decoded(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise _unreadable("a '%' that starts no %XX")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise _unreadable("bytes that are no text")
    return decoded


def _unreadable(why: str) -> StoreError:
    return StoreError(
        f"the store URL postgresql://{HIDDEN} cannot be read: {why}",
        hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where @ : / ? # % in a name or "
        "password are written %40 %3A %2F %3F %23 %25",
    )
