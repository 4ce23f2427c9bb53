"""Classes of a probe that are not, one by one, the classes of the zero-shot head.

ImageNet-R and -A hold 200 of ImageNet's 1,000 classes, ObjectNet 313, of which 113 stand for one or
several of them. A probe names its own classes; each is found in the head by its name, or by what
`classmap.csv` beside the data says: a column `class` and a column `head_class`, one line per pair.
Where ObjectNet's folder `mappings` lies beside the data, that says it. The head is then narrowed to
those classes, as the data sets' authors do. A class for which the head has none is left out with
its samples: a line with nothing behind the comma.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipq.data.objectnet_map import MAPPINGS, read_objectnet_map
from clipq.data.probe import Probe, taken
from clipq.data.reading import read_lines
from clipq.data.shards import Checksums
from clipq.errors import ProbeError, did_you_mean, listed
from clipq.shapes import Document

__all__ = [
    "CLASS_MAP",
    "classes_seen",
    "head_columns",
    "kept_places",
    "read_class_map",
    "within_the_head",
]

CLASS_MAP = "classmap.csv"
_SHOWN = 5
"""Names that a message gives before it counts the rest."""


def read_class_map(
    root: Path, classnames: Sequence[str], name: str, checksums: Checksums | None
) -> tuple[tuple[str, ...], ...] | None:
    """Return, for each class, the head's classes that stand for it; None where there is no map.

    None of them stands for a class that is to be left out.

    Raises:
        ProbeError: the map is malformed, or does not speak of a class.

    >>> print(read_class_map(Path("fixtures/data/shapes"), ["circle"], "id", None))  # it has no map
    None
    """
    path = root / CLASS_MAP
    if not path.is_file():
        path, mapped = root / MAPPINGS, read_objectnet_map(root, checksums)
        if mapped is None:
            return None
    else:
        mapped = _pairs(path, checksums)
    for classname in classnames:
        if classname not in mapped:
            raise ProbeError(
                f"probe {name!r}: {path}: no line for class {classname!r}",
                hint=f"{did_you_mean(classname, mapped)}; a class for which the head has none is "
                "left out by a line with nothing behind the comma",
            )
    if classnames and not any(mapped[classname] for classname in classnames):
        raise ProbeError(
            f"probe {name!r}: {path} leaves all classes out", hint="map those that the head has"
        )
    return tuple(mapped[classname] for classname in classnames)


def _pairs(path: Path, checksums: Checksums | None) -> dict[str, tuple[str, ...]]:
    """Return what `classmap.csv` says."""
    fix = "its first line is 'class,head_class', each further line one pair"
    document = Document(path, "CSV", ProbeError, fix)
    mapped: dict[str, tuple[str, ...]] = {}
    for row in document.rows(read_lines(path, checksums), "class", "head_class"):
        head = (row["head_class"],) if row["head_class"] else ()
        mapped[row["class"]] = mapped.get(row["class"], ()) + head
    return mapped


def classes_seen(
    class_map: Sequence[Sequence[str]] | None, classnames: Sequence[str]
) -> dict[str, int]:
    """Return how many classes a look finds, and how many of them the map leaves out.

    >>> classes_seen([["tabby", "lynx"], []], ["cat", "yeti"])
    {'classes': 1, 'classes left out, for which the head has none': 1}
    """
    kept = len(classnames) if class_map is None else sum(map(bool, class_map))
    if kept == len(classnames):
        return {"classes": kept}
    left_out = len(classnames) - kept
    return {"classes": kept, "classes left out, for which the head has none": left_out}


def kept_places(class_map: Sequence[Sequence[str]]) -> dict[int, int]:
    """Return the new label of each class that has a class of the head, in order.

    >>> kept_places([("cat",), (), ("dog",)])
    {0: 0, 2: 1}
    """
    kept = [label for label, heads in enumerate(class_map) if heads]
    return {label: new for new, label in enumerate(kept)}


def within_the_head(probe: Probe) -> Probe:
    """Return a probe without the classes, and their samples, that its map leaves out.

    >>> from clipq.data import Images, probe_from_images
    >>> import numpy as np
    >>> pictures = Images(np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 2], ["cat", "yeti", "dog"])
    >>> probe = probe_from_images(pictures, name="pets", role="shift")
    >>> kept = within_the_head(replace(probe, class_map=(("cat",), (), ("dog",))))
    >>> kept.classnames, kept.ids, kept.labels.tolist()
    (('cat', 'dog'), ('0', '2'), [0, 1])
    """
    if probe.class_map is None or all(probe.class_map):
        return probe
    place = kept_places(probe.class_map)
    positions = [p for p, label in enumerate(probe.labels.tolist()) if label in place]
    renumbered = probe.labels.copy()
    renumbered[positions] = [place[label] for label in probe.labels[positions].tolist()]
    return replace(
        taken(replace(probe, labels=renumbered), positions),
        classnames=tuple(probe.classnames[label] for label in place),
        class_map=tuple(probe.class_map[label] for label in place),
    )


def head_columns(
    name: str,
    classnames: Sequence[str],
    class_map: Sequence[Sequence[str]] | None,
    head_classes: Sequence[str],
) -> tuple[tuple[int, ...], ...] | None:
    """Return, for each class of a probe, which columns of the head stand for it.

    None where the probe's classes are exactly the head's. A name that both have several times, as
    ImageNet's have "sunglasses", stands for one column each time; one that the head alone has
    several times, for all of them.

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
    wanted = [tuple(dict.fromkeys(own)) for own in class_map or [(c,) for c in classnames]]
    foreign = list(dict.fromkeys(head for own in wanted for head in own if head not in position))
    if foreign:
        classname = next(c for c, own in zip(classnames, wanted, strict=True) if foreign[0] in own)
        others = f" (nor {listed([*map(repr, foreign[1:])], most=_SHOWN)})" if foreign[1:] else ""
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
