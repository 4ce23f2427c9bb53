"""Which name belongs to which class, where folders or labels and a list of names meet.

Text sorts 10 before 2: class folders that are called by numbers count as numbers. And a list that
names classes by their places is held against what the classes are called already. A list in another
order would mislabel nearly everything, and only the accuracy would tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from clipq.data.counted_names import counted, misplaced, says
from clipq.data.shipped_lists import wordnet_names
from clipq.errors import ProbeError

__all__ = ["in_order", "names_by_place"]

_NUMBER = re.compile("[0-9]{1,99}")


def in_order(folders: Iterable[str]) -> list[str]:
    """Return the names of class folders in the order of their labels.

    Where all are whole numbers, by number, as in ImageNet-V2; otherwise as text, as torchvision's
    `ImageFolder` sorts them.

    >>> in_order(["10", "9", "0"]), in_order(["10", "9", "zero"])
    (['0', '9', '10'], ['10', '9', 'zero'])
    """
    names = list(folders)
    if all(map(_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def names_by_place(
    classes: Sequence[str], names: Sequence[str], *, probe: str, listed: str, shipped: bool = False
) -> tuple[str, ...]:
    """Return a list's name for each class of a probe.

    Classes that are called 0 to N - 1 say their places in the list, in whatever order they come.

    Args:
        classes: what they are called now, in the order of their labels.
        names: the list.
        probe: whose classes they are, for messages.
        listed: what messages call the list.
        shipped: whether the list is one of clipq's, whose places are counted from 0.

    Raises:
        ProbeError: there are more or fewer names than classes, or the classes' own names say that
            the list is in another order.

    >>> names_by_place(["0", "2", "1"], ["zero", "one", "two"], probe="digits", listed="a list")
    ('zero', 'two', 'one')
    >>> names_by_place(["cat", "dog"], ["dog", "cat"], probe="pets", listed="a list")
    Traceback (most recent call last):
    clipq.errors.ProbeError: probe 'pets': class 'cat' would be called 'dog', but a list has its ...
      fix: ...
    """
    if len(classes) != len(names):
        raise ProbeError(
            f"probe {probe!r} has {len(classes)} classes, its list {len(names)}: {listed}",
            hint=_subset_hint(classes)
            or "one name per class, in the order of the labels (of class folders: sorted by name, "
            "or by number)",
        )
    if all(map(_NUMBER.fullmatch, classes)):
        named = _by_number([int(one) for one in classes], names, probe, listed, shipped)
        _check_counted(classes, named, probe, listed, by_text=False)
        return named
    wordnet = wordnet_names()
    own = [_folded(wordnet.get(one, one)) for one in classes]
    given = [_folded(name) for name in names]
    # A name that a class has at its own place is not looked for: "Cardigan", a dog that a newer
    # list calls otherwise, is not the garment "cardigan".
    elsewhere = {one: at for at, one in enumerate(given) if own[at] != one}
    for place, one in enumerate(own):
        if given[place] != one and one in elsewhere:
            raise ProbeError(
                f"probe {probe!r}: class {classes[place]!r} would be called {names[place]!r}, but "
                f"{listed} has its name in line {elsewhere[one] + 1}",
                hint="the list is in another order than the classes: put its lines in the order of "
                "the labels (of class folders: sorted by name)",
            )
    if own != given:
        _check_counted(classes, names, probe, listed, by_text=True)
    return tuple(names)


def _by_number(
    numbers: Sequence[int], names: Sequence[str], probe: str, listed: str, shipped: bool
) -> tuple[str, ...]:
    if sorted(numbers) == list(range(len(names))):
        return tuple(names[number] for number in numbers)
    if not shipped and all(one < other for one, other in pairwise(numbers)):
        return tuple(names)  # 1 to 102, say, and a list that was made for them
    raise ProbeError(
        f"probe {probe!r}: its {len(numbers)} classes are called {min(numbers)} to {max(numbers)}, "
        f"which are not the places 0 to {len(names) - 1} of {listed}",
        hint="count classes from 0 without a gap, or give their names in a file of your own",
    )


def _check_counted(
    classes: Sequence[str], names: Sequence[str], probe: str, listed: str, *, by_text: bool
) -> None:
    """Refuse a list that may have counted where classes were sorted as text, or the reverse.

    Nobody can tell the order of a list that was made for class_1, class_10, class_2, unless its
    names say to which class they belong.

    Args:
        classes: what they are called.
        names: what each of them would be called.
        probe: for messages.
        listed: what messages call the list.
        by_text: whether the classes' order may come from a sort as text.

    Raises:
        ProbeError: the order is in doubt.
    """
    for place in misplaced(classes) if by_text else ():
        if not says(names[place], classes[place]):
            raise ProbeError(
                f"probe {probe!r}: class {classes[place]!r} is number {place} as text sorts, and "
                f"{listed} may count otherwise: its name would be {names[place]!r}",
                hint="give the numbers of class folders leading zeros, or call folders by a whole "
                "number alone, or by the classes' names without a list; a list is taken where its "
                "names hold the classes' own numbers or words",
            )
    own, given = counted(classes), counted(names)
    if own is None or given is None:
        return
    if sorted(own) != sorted(given) and max(given) - min(given) != len(given) - 1:
        return  # numbers that count nothing, as of aeroplanes
    for place in misplaced(names):
        if not says(names[place], classes[place]):
            raise ProbeError(
                f"probe {probe!r}: class {classes[place]!r} would be called {names[place]!r}, for "
                f"{listed} is sorted as text, where 10 comes before 2",
                hint="put its lines in the order of their numbers",
            )


def _subset_hint(classes: Sequence[str]) -> str:
    if all(one in wordnet_names() for one in classes):
        return "folders that are called by WordNet ids, all or some: classes = 'imagenet1k-wnid'"
    return ""


def _folded(name: str) -> str:
    """Return a name without what people write differently: case, underscores, hyphens."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))
