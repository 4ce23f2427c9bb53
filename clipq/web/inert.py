"""What keeps a page of one file inert: its data stay text, and it can fetch nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["embed", "page_policy"]

# What could end a script element, start a comment or an entity, or end a line of old scripts.
_INERT = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def embed(plain: Mapping[str, Any]) -> str:
    """Return strict JSON that stays text inside a script element, whatever it holds.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    # ASCII only: half a surrogate pair in a file name cannot be encoded otherwise.
    text = json.dumps(plain, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_INERT)


def page_policy(style: str, script: str) -> str:
    """Return a content security policy: this style, this script, pictures made of data, no more.

    Trusted Types are required and none is allowed, so that text can never become markup.
    """
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
