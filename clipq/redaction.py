"""Credentials taken out of texts: the one place that knows what a secret looks like.

Every `ClipqError` passes its sentences through here, and so do the addresses that records keep:
a password in a probe's URL, a hub's token in a query string or a header that a library quotes
reaches no terminal, log, report, record or store.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["HIDDEN", "is_secret_name", "redacted"]

HIDDEN = "***"
"""What stands where a secret stood."""

# A name is taken apart where its words meet: X-Amz-Signature, accessToken, HF_TOKEN, APIKey.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Wherever they stand in a name, as a word, as two, or behind one without a seam: `sslpassword`.
_ANYWHERE = re.compile(
    r".*(?:passw(?:or)?d|passphrase|passcode|pwd|secrets?|credentials?|authori[sz]ation"
    r"|(?:api|access|private|account)key)"
)
# Only as what a name ends in: a method that merges tokens is none.
_AT_THE_END = re.compile(r"[a-z]*token|signature|sig|auth|pass|pw")
_TRAILING = {"value", "string", "header"}  # tokenValue
# Words that sentences use before a colon as well; there, only `=` or a quoted key makes a secret,
# and no number does: {"pass": 500} counts.
_ORDINARY = re.compile(r"(?:token|signature|credentials?|sig|auth|secret|pass)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]+)?%?[.:]?")
# What a quantizer's text has behind its method, as in `merge-token:w8a8@vision`; nothing looser, as
# a password may begin so.
_CODE = r"(?:[2-8]|e[45]m[23]|nf4|mxfp[48])"
_FORMAT = re.compile(
    rf"w{_CODE}(?:t|g\d{{1,5}})?z?p?(?:a{_CODE}(?:d(?:g\d{{1,5}})?)?z?p?)?(?:k[2-8])?(?:s[2-8])?"
    r"(?:@(?:vision|text|both))?(?:/[A-Za-z0-9_-]{1,64}\.[a-z0-9-]{1,64})?[.:]?"
)
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

    >>> [is_secret_name(name) for name in ("X-Amz-Signature", "accessToken", "token-merging")]
    [True, True, False]
    """
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and words[-1] in _TRAILING:
        words.pop()
    if any(_ANYWHERE.fullmatch(word) for word in (*words, *map("".join, pairwise(words)))):
        return True
    return bool(words) and _AT_THE_END.fullmatch(words[-1]) is not None


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


def _spoken(name: str, sign: str, value: str, *, quoted: bool, spaced: bool) -> bool:
    """Whether a name that might be a secret's is a word of a sentence, a count or a quantizer."""
    if sign == "=":
        return False
    if not quoted and not spaced and _FORMAT.fullmatch(value):
        return True
    *_, last = _WORD.findall(name)
    if _ORDINARY.fullmatch(last) and _NUMBER.fullmatch(value):
        return True
    return _ORDINARY.fullmatch(name) is not None and not quoted


def _without_values(text: str) -> str:
    parts, done = [], 0
    for found in _NAME.finditer(text):
        name, end, sign = found.groups()
        if found.start() < done or not is_secret_name(name):
            continue
        value = _VALUE.match(text, found.end())
        spaced = found[0][-1] != sign
        if value is None or _spoken(name, sign, value[0], quoted=bool(end), spaced=spaced):
            continue
        quote = value[2][0] if value[2][0] in "\"'" else ""
        after = "" if quote else value[2][len(value[2].rstrip(":.")) :]  # of the sentence
        parts += [text[done : found.end()], quote, HIDDEN, quote, after]
        done = value.end()
    return "".join([*parts, text[done:]])
