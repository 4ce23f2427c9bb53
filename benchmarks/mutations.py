"""Damaged forms of a file: bytes that flip, lack, repeat or do not belong, values of another kind.

Everything is drawn from one `random.Random`, so that a seed and a number name an input for good.
"""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["STRANGE", "damaged_bytes", "damaged_json", "damaged_text", "damaged_toml"]

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.0, -0.0, 1e308, 5e-324, "", " ",
    "\x00", "\x1b[2J", "::error::x", "\u202e", "\ud800", "a" * 5000, "../../etc/passwd",
    "/dev/zero", "nan", "*", "[", "{", "%s%n", "=1+1", "é" * 100, [], {}, [[]], [None], {"": None},
    {"x": {}}, [1, "a", None], float("nan"), float("inf"), -float("inf"), "https://a:b@c/",
    "rtn:w8", "\n", "|",
)  # fmt: skip
"""Values that a key may hold and hardly ever should."""

_TEXTS = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\r\n",
        b"\x1b",
        b"\n\n",
        b'"',
        b"'",
        b"[[",
    ),
    *(b"]", b"{", b"}", b"=", b",", b"#", b"nan", b"inf", b"1e999", b"-", b"9" * 5000, b"\\u0000"),
    *(b"\\ud800", b"\xc3", b"\t", b"\x7f", b"/", b"..", b"*", b"[" * 3000, b'{"a":' * 3000, b"-1"),
)


def damaged_bytes(content: bytes, random: Random) -> bytes:
    """Return bytes with one to four things done to them that disks, networks and people do."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = random.choice(_BYTE_CHANGES)(content, random)
    return content


def damaged_text(text: str, random: Random) -> str:
    """Return a text of a command line: no NUL in it, for none can be passed."""
    damaged = damaged_bytes(text.encode("utf-8", "surrogatepass"), random)
    return damaged.decode("utf-8", random.choice(("replace", "surrogateescape"))).replace("\0", "")


def damaged_json(content: bytes, random: Random) -> bytes:
    """Return JSON with other values in some places, or damaged as bytes."""
    if random.random() < 0.3:
        return damaged_bytes(content, random)
    return json.dumps(_damaged_tree(json.loads(content), random)).encode()


def damaged_toml(content: bytes, random: Random) -> bytes:
    """Return TOML with other values in some places, or damaged as bytes."""
    import tomllib

    if random.random() < 0.3:
        return damaged_bytes(content, random)
    tree = _damaged_tree(tomllib.loads(content.decode()), random)
    return _toml(tree).encode("utf-8", "replace")


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 8, 64)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _remove(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content) + 1)
    return content[:start] + content[start + random.choice((1, 2, 16, 512)) :]


def _repeat(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content) + 1)
    part = content[start : start + random.choice((1, 8, 64, 4096))]
    return content[:start] + part * random.choice((2, 2, 50)) + content[start:]


def _insert(content: bytes, random: Random) -> bytes:
    start = random.choice((0, len(content), random.randrange(len(content) + 1)))
    return content[:start] + random.choice(_TEXTS) + content[start:]


def _number(content: bytes, random: Random) -> bytes:
    """Write an end of the range of a number of 2, 4 or 8 bytes somewhere, as headers hold them."""
    size = random.choice((2, 4, 8))
    start = random.choice((0, random.randrange(len(content) + 1)))
    value = random.choice((b"\0" * size, b"\xff" * size, b"\xff" * (size - 1) + b"\x7f"))
    return content[:start] + value + content[start + size :]


def _noise(content: bytes, random: Random) -> bytes:
    return random.randbytes(random.choice((0, 1, 7, 512, 5000)))


_BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip, _flip, _cut, _remove, _repeat, _insert, _insert, _number, _noise,
)  # fmt: skip


def _damaged_tree(tree: Any, random: Random) -> Any:
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        tree = _damaged_place(tree, random)
    return tree


def _damaged_place(tree: Any, random: Random) -> Any:
    """Change one place, however deep it lies."""
    if not isinstance(tree, dict | list) or not tree or random.random() < 0.02:
        return _another(tree, random)
    key: Any = random.choice(list(tree)) if isinstance(tree, dict) else random.randrange(len(tree))
    if isinstance(tree[key], dict | list) and tree[key] and random.random() < 0.85:
        tree[key] = _damaged_place(tree[key], random)
        return tree
    action = random.randrange(6)
    if action == 0:
        del tree[key]
    elif action == 1 and isinstance(tree, dict):
        strange = random.choice([text for text in STRANGE if isinstance(text, str)])
        tree[strange] = tree.pop(key)
    elif action == 1:
        tree.append(copy.deepcopy(tree[key]))
    elif action == 2 and isinstance(tree, dict):
        tree[random.choice(("schema", "extra", "name", "id"))] = random.choice(STRANGE)
    else:
        tree[key] = _another(tree[key], random)
    return tree


def _another(value: Any, random: Random) -> Any:
    """Return another value: of another kind, beyond the range, or much deeper."""
    action = random.randrange(5)
    if action == 0 and isinstance(value, int | float) and abs(value) < 1e300:
        return random.choice((-value, value * 10**9, value - 1, value // 2, f"{value!r:.300}"))
    if action == 1 and isinstance(value, str):
        return damaged_text(value, random)
    if action == 2:
        return [value]
    if action == 3 and random.random() < 0.2:
        for _ in range(random.choice((20, 60))):
            value = {"x": value}
        return value
    return random.choice(STRANGE)


def _toml(value: Any, inline: bool = False) -> str:
    """Return a tree as TOML, tables inline below the top; what TOML lacks is left to be refused."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(k))} = {_toml(v, inline=True)}" for k, v in value.items()]
        return "{" + ", ".join(pairs) + "}" if inline else "\n".join(pairs) + "\n"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one, inline=True) for one in value) + "]"
    if isinstance(value, float | datetime.date):
        return str(value)
    return json.dumps(value, default=str)
