"""Whether a part's file is, to the byte, what was written under its name: one hash, no parsing.

The file's metadata ends in ``clipq-seal:`` and the sha256 of its schema, its unit's id and its
bytes, of which those 64 digits count as zeros. Whatever changes a byte, copies a part over
another's name or writes another schema breaks it, and telling so takes a fraction of what reading
Parquet does: questions check every part that they read.
"""

from __future__ import annotations

import hashlib

__all__ = ["UNSEALED", "is_sealed", "seal"]

_MARK = b"clipq-seal:"
_ZEROS = b"0" * 64
UNSEALED = (_MARK + _ZEROS).decode()
"""What stands in the metadata before a file is sealed."""


def seal(content: bytes, name: str, schema: str) -> bytes:
    """Return content with its digest in the place of the zeros.

    Args:
        content: that holds `UNSEALED`, last of all its marks.
        name: of its unit.
        schema: of its rows.

    >>> sealed = seal(b"rows " + UNSEALED.encode() + b" end", "0f", "rows/1")
    >>> is_sealed(sealed, "0f", "rows/1"), is_sealed(sealed.replace(b"w", b"v"), "0f", "rows/1")
    (True, False)
    >>> is_sealed(sealed, "1f", "rows/1"), is_sealed(sealed, "0f", "rows/2")
    (False, False)
    """
    at = _place(content)
    return content[:at] + _digest(content, at, name, schema) + content[at + len(_ZEROS) :]


def is_sealed(content: bytes, name: str, schema: str) -> bool:
    """Whether content is what `seal` returned for this name and schema."""
    at = _place(content)
    if at < len(_MARK):
        return False
    return content[at : at + len(_ZEROS)] == _digest(content, at, name, schema)


def _place(content: bytes) -> int:
    return content.rfind(_MARK) + len(_MARK)  # the last: metadata follows all data


def _digest(content: bytes, at: int, name: str, schema: str) -> bytes:
    found = hashlib.sha256(f"{schema}\n{name}\n".encode())
    view = memoryview(content)
    found.update(view[:at])
    found.update(_ZEROS)
    found.update(view[at + len(_ZEROS) :])
    return found.hexdigest().encode()
