"""Credentials taken out of texts: the one place that knows what a secret looks like.

Every `ClipqError` passes its sentences through here, and so do the addresses that records keep:
a password in a probe's URL, a hub's token in a query string or a header that a library quotes
reaches no terminal, log, report, record or store.
"""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "is_secret_name", "redacted"]

HIDDEN = "***"
"""What stands where a secret stood."""

_SECRET = re.compile(
    r"(?<!com)(?<!by)pass(?!file|ive|age|ed\b|es\b|ing\b|th)(?:w|phrase|code|$)|pwd|secret|token(?!iz|s\b)"
    r"|credential|signature|authori[sz]ation|(?:api|access|private|account)[-_]?key|^sig$|^auth$",
    re.IGNORECASE,
)
# Words that sentences use before a colon as well; there, only `=` or a quoted key makes a secret.
_ORDINARY = re.compile(r"(?:token|signature|credentials?|sig|auth|secret)", re.IGNORECASE)
# From `://` to the last `@`. A password is often not encoded as it should be: one that holds `/`,
# `?`, `#` or `@` is hidden too, as long as it holds no space and no quote.
_IN_A_URL = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]{0,30}:/{2})([^\s"'<>]{1,1024})@""")
_DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle")
_HOST_AND_PORT = re.compile(r"[^:@]*(?::[0-9]{1,5})?")
# A parameter of a URL, a keyword of a connection string, a header, a key of JSON: name, then value.
_NAME = re.compile(
    r"""(?<![A-Za-z0-9_-])([A-Za-z][A-Za-z0-9_-]{1,60})(["']?)\s{0,3}([=:])\s{0,3}"""
)
_VALUE = re.compile(
    r"""((?:bearer|basic|token|digest)\s+)?("[^"\n]*"|'[^'\n]*'|[^\s&;,"'<>)\]}]+)""", re.IGNORECASE
)
_SCHEME = re.compile(r"\b(bearer|basic)\s+([A-Za-z0-9._~+/=-]{12,})", re.IGNORECASE)
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{10,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)


def redacted(text: str) -> str:
    """Return a text without the credentials in it; what is left reads as it did.

    Hidden are the user and password of a URL (of a database, the password alone: which user was
    refused is what one needs to know), parameters and headers that are called as secrets are, and
    tokens that are known by how they start.

    >>> redacted("https://ada:enigma@example.org/shards?rev=2&token=abc: 401 Unauthorized")
    'https://***@example.org/shards?rev=2&token=***: 401 Unauthorized'
    >>> redacted("postgresql://ada:enigma@host/runs, Authorization: Bearer abcdefgh")
    'postgresql://ada:***@host/runs, Authorization: ***'
    """
    if "@" in text:
        text = _IN_A_URL.sub(_without_user, text)
    text = _without_values(text)
    text = _SCHEME.sub(rf"\g<1> {HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def is_secret_name(name: str) -> bool:
    """Return whether a parameter or header of that name holds a secret.

    >>> [is_secret_name(name) for name in ("X-Amz-Signature", "access_token", "passfile")]
    [True, True, False]
    """
    return _SECRET.search(name) is not None


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found[1], found[2]
    if user == "USER:PASSWORD":  # what our own hints say
        return found[0]
    before, slash, _ = user.partition("/")
    if slash and "@" not in before and _HOST_AND_PORT.fullmatch(before):
        return found[0]  # an `@` of the path, as in .../models@main
    if scheme.lower().startswith(_DATABASES):
        name, colon, _ = user.partition(":")
        return f"{scheme}{name}{f':{HIDDEN}' if colon else ''}@"
    return f"{scheme}{HIDDEN}@"


def _counts(found: re.Match[str], value: str) -> bool:
    """Whether a key and its value are how many cases passed, as Python writes it."""
    return found.groups() == ("pass", "'", ":") and value.isdecimal()


def _without_values(text: str) -> str:
    parts, done = [], 0
    for found in _NAME.finditer(text):
        name, end, sign = found.groups()
        spoken = _ORDINARY.fullmatch(name) and not end and sign != "="
        if found.start() < done or spoken or not is_secret_name(name):
            continue
        value = _VALUE.match(text, found.end())
        if value is None or _counts(found, value[0]):
            continue
        quote = value[2][0] if value[2][0] in "\"'" else ""
        after = "" if quote else value[2][len(value[2].rstrip(":.")) :]  # of the sentence
        parts += [text[done : found.end()], quote, HIDDEN, quote, after]
        done = value.end()
    return "".join([*parts, text[done:]])
