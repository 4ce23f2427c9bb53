"""Classes of a probe that are not, one by one, the classes of the zero-shot head.

ImageNet-R and -A hold 200 of ImageNet's 1,000 classes, ObjectNet 113, some of which stand for
several. A probe names its own classes; each is found in the head by its name, or by what
`classmap.csv` beside the data says: a column `class` and a column `head_class`, one line per pair.
The head is then narrowed to those classes, as the data sets' authors do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipq.data.reading import read_lines
from clipq.data.shards import Checksums
from clipq.errors import ProbeError, did_you_mean
from clipq.shapes import Document

__all__ = ["CLASS_MAP", "head_columns", "read_class_map"]

CLASS_MAP = "classmap.csv"
_SHOWN = 5
"""Names that a message gives before it counts the rest."""


def read_class_map(
    root: Path, classnames: Sequence[str], name: str, checksums: Checksums | None
) -> tuple[tuple[str, ...], ...] | None:
    """Return, for each class, the head's classes that stand for it; None where there is no map.

    Raises:
        ProbeError: the map is malformed, or leaves a class out.

    >>> print(read_class_map(Path("fixtures/data/shapes"), ["circle"], "id", None))  # it has no map
    None
    """
    path = root / CLASS_MAP
    if not path.is_file():
        return None
    fix = "its first line is 'class,head_class', each further line one pair"
    document = Document(path, "CSV", ProbeError, fix)
    head_classes: dict[str, list[str]] = {}
    for row in document.rows(read_lines(path, checksums), "class", "head_class"):
        head_classes.setdefault(row["class"], []).append(row["head_class"])
    for classname in classnames:
        if classname not in head_classes:
            raise document.fail(
                "", f"no line for class {classname!r}", did_you_mean(classname, head_classes)
            )
    return tuple(tuple(head_classes[classname]) for classname in classnames)


def head_columns(
    name: str,
    classnames: Sequence[str],
    class_map: Sequence[Sequence[str]] | None,
    head_classes: Sequence[str],
) -> tuple[tuple[int, ...], ...] | None:
    """Return, for each class of a probe, which columns of the head stand for it.

    None where the probe's classes are exactly the head's.

    Raises:
        ProbeError: a class is not among the head's, or two stand for one.

    >>> head = ["red cat", "black cat", "dog"]
    >>> head_columns("pets", ["cat", "dog"], [["red cat", "black cat"], ["dog"]], head)
    ((0, 1), (2,))
    """
    if class_map is None and tuple(classnames) == tuple(head_classes):
        return None
    position: dict[str, list[int]] = {}
    for index, head in enumerate(head_classes):
        position.setdefault(head, []).append(index)
    counts = Counter(head_classes)
    wanted = class_map or [(classname,) for classname in classnames]
    foreign = list(dict.fromkeys(head for own in wanted for head in own if head not in position))
    if foreign:
        classname = next(c for c, own in zip(classnames, wanted, strict=True) if foreign[0] in own)
        others = f" (nor {_listed(foreign[1:])})" if foreign[1:] else ""
        raise ProbeError(
            f"probe {name!r}: class {classname!r}: no class of the in-distribution probe is "
            f"called {foreign[0]!r}{others}",
            hint=f"{did_you_mean(foreign[0], head_classes)}; a {CLASS_MAP} beside the data maps "
            "its classes to the head's",
        )
    named = Counter(head for own in wanted for head in own)
    columns = [
        tuple(
            column
            for head in own
            # As many classes of a name here as there, as of ImageNet's two "missile": one each.
            for column in (
                [position[head].pop(0)] if named[head] == counts[head] > 1 else position[head]
            )
        )
        for own in wanted
    ]
    used = [column for group in columns for column in group]
    if len(set(used)) != len(used):
        twice = next(column for column in used if used.count(column) > 1)
        raise ProbeError(
            f"probe {name!r}: two classes stand for {head_classes[twice]!r}",
            hint="each class of the head stands for one class of the probe at most",
        )
    if len(columns) < 2:
        raise ProbeError(
            f"probe {name!r} has {len(columns)} class", hint="a classification needs two"
        )
    return tuple(columns)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
