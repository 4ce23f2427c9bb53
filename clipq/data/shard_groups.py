"""Members of a shard, put together to samples as `webdataset` does it.

Its own function would do: but to import it takes torch, two seconds that no command should wait for
which only looks at samples. A test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["grouped", "key_of"]

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def key_of(member: str) -> tuple[str, str] | None:
    """Return the key of a member's sample and its ending in lower case; None where it has none.

    >>> key_of("birds/a.seg.PNG"), key_of("README")
    (('birds/a', 'seg.png'), None)
    """
    found = _NAME.match(member)
    return (found[1], found[2].lower()) if found else None


def grouped(members: Iterable[tuple[str, bytes]]) -> Iterator[dict[str, str | bytes]]:
    """Yield samples: ``__key__``, and the bytes of each ending of members that follow each other.

    Raises:
        ValueError: one sample has two members of one ending.

    >>> list(grouped([("a.png", b"..."), ("a.cls", b"0"), ("b.cls", b"1")]))
    [{'__key__': 'a', 'png': b'...', 'cls': b'0'}, {'__key__': 'b', 'cls': b'1'}]
    """
    sample: dict[str, str | bytes] = {}
    for name, content in members:
        found = key_of(name)
        if found is None:
            continue
        key, ending = found
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        sample = sample or {"__key__": key}
        if ending in sample:
            raise ValueError(f"{name!r} is the second member {key!r} with the ending {ending!r}")
        sample[ending] = content
    if sample:
        yield sample
