"""What the members of one sample of a shard say: its image, its label, its texts."""

from __future__ import annotations

import re
from typing import Any

from clipq.data.image_names import IMAGES
from clipq.errors import ProbeError
from clipq.shapes import Document, shown

__all__ = ["image_of", "is_sample", "kinds_beside", "label_of", "text_of"]


def is_sample(members: dict[str, Any], *, labelled: bool) -> bool:
    """Whether members that share a key are a sample, whole or not: no text of the whole shard.

    They are where one is an image, or is what each sample has: a class or, without classes, a
    caption. So a ``README.md`` is none, and what is left of a sample without its image is one.

    Args:
        members: the bytes of each, by its ending.
        labelled: whether samples have classes.

    >>> [is_sample(dict.fromkeys(kinds), labelled=True) for kinds in (["md"], ["cls"], ["png"])]
    [False, True, True]
    """
    return ("cls" if labelled else "txt") in members or any(kind in members for kind in IMAGES)


def image_of(members: dict[str, Any], where: str) -> bytes:
    """Return the encoded image of a sample.

    Args:
        members: of the sample, by their endings.
        where: what a message calls the sample.

    Raises:
        ProbeError: it has none, or more than one.

    >>> image_of({"png": b"...", "cls": b"3"}, "a sample")
    b'...'
    """
    kinds = [kind for kind in IMAGES if kind in members]
    if len(kinds) != 1:
        held = ", ".join(f".{kind}" for kind in members if not kind.startswith("__"))
        raise ProbeError(
            f"{where}: {len(kinds)} images among its members ({shown(held)})",
            hint=f"exactly one of {', '.join(IMAGES)} is expected; what belongs to no sample is "
            "better kept beside the shards",
        )
    return bytes(members[kinds[0]])


def text_of(members: dict[str, Any], kind: str, where: str) -> str:
    """Return a member that is a text, without blanks around it; "" where there is none.

    Raises:
        ProbeError: it is not UTF-8.

    >>> text_of({"txt": b" an owl "}, "txt", "a sample")
    'an owl'
    """
    document = Document(f"{where}: <key>.{kind}", "UTF-8", ProbeError, "encode it again")
    return document.text(members.get(kind, b"")).strip()


def label_of(members: dict[str, Any], classes: int, where: str) -> int:
    """Return the class of a sample, from 0 to `classes` - 1.

    Raises:
        ProbeError: it has none, or one that is out of range.

    >>> label_of({"png": b"...", "cls": b"3"}, 4, "a sample")
    3
    """
    if "cls" not in members:
        raise ProbeError(f"{where}: no label", hint="<key>.cls holds a class index")
    text = text_of(members, "cls", where)
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise ProbeError(
            f"{where}: label {text!r} is not a whole number", hint="<key>.cls holds a class index"
        )
    label = int(text)
    if not 0 <= label < classes:
        raise ProbeError(
            f"{where}: label {label} is out of range",
            hint=f"classnames.txt names {classes} classes, so labels go from 0 to {classes - 1}",
        )
    return label


def kinds_beside(members: dict[str, Any]) -> list[str]:
    """Return the endings of a sample's members that nobody reads.

    >>> kinds_beside({"__key__": "a", "png": b"...", "npy": b"..."})  # webdataset adds the key
    ['npy']
    """
    read = (*IMAGES, "cls", "json", "txt")
    return [kind for kind in members if kind not in read and not kind.startswith("__")]
