"""Names that hold numbers, as `level 2` and `level 10`, which text sorts the other way round.

People and file browsers list such names by number, programs as text. Where the two differ, nobody
can tell in which of both orders a list was written, unless its entries say what they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["counted", "misplaced", "says"]

# A hyphen behind a letter or digit joins or ranges ("DC-10", "0-2"); any other is a sign, and only
# what is below zero is ordered otherwise by its decimals than as text.
_NUMBER = re.compile(r"(?<![^\W_])[-\u2212](\d{1,300}(?:\.\d{1,300})?)|\d{1,300}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\d{1,300}|[^\W\d_]+")
_CODE = re.compile(r"(?i)[0-9a-f]+")


def misplaced(names: Sequence[str]) -> list[int]:
    """Return the places whose names would stand elsewhere if their numbers counted as numbers.

    There are none where the names are in an order that somebody chose, not sorted as text; an
    underscore counts as the blank that a source may have made of it.

    >>> misplaced(["1_cat", "10_ox", "2_dog", "unknown"]), misplaced(["-1", "-2"])
    ([1, 2], [0, 1])
    >>> misplaced(["01_cat", "02_dog", "10_ox"]), misplaced(["4a", "50"])
    ([], [])
    """
    if not all(_may_follow(one, other) for one, other in pairwise(names)) or _are_codes(names):
        return []
    counts: dict[str, list[tuple[int, float]]] = {}
    for place, name in enumerate(names):
        text = _THOUSANDS.sub("", name)
        for found in _NUMBER.finditer(text):
            before = re.sub(r"[\s_-]", " ", text[: found.start()].casefold())
            value = -float(found[1]) if found[1] else int(found[0])
            counts.setdefault(before, []).append((place, value))
    numbers = [_as_number(name) for name in names]
    series = [*counts.values()]
    if None not in numbers:  # 1e-3, which no digit alone places
        series.append([(place, value) for place, value in enumerate(numbers) if value is not None])
    return sorted(
        {
            place
            for one in series
            for (place, value), right in zip(one, sorted(value for _, value in one), strict=True)
            if value != right
        }
    )


def says(name: str, owner: str) -> bool:
    """Whether a name says that it belongs to `owner`: the same numbers, or all words of either.

    >>> says("Douglas DC-10", "DC_10"), says("cat", "10_cat"), says("level 10", "class_10")
    (True, True, True)
    >>> says("level 2", "class_10"), says("ten", "class_10")
    (False, False)
    """
    numbers, own_numbers = _numbers(name), _numbers(owner)
    tokens, own = _tokens(name), _tokens(owner)
    return (numbers == own_numbers != []) or bool(
        tokens and own and (tokens <= own or own <= tokens)
    )


def counted(names: Sequence[str]) -> list[int] | None:
    """Return the number of each name where all hold one, and none the same; otherwise None.

    >>> counted(["level 1", "level 10"]), counted(["level 1", "ten"]), counted(["a 1", "b 1"])
    ([1, 10], None, None)
    """
    found = [_numbers(name) for name in names]
    flat = [one[0] for one in found if len(one) == 1]
    return flat if len(flat) == len(found) == len(set(flat)) else None


def _may_follow(one: str, other: str) -> bool:
    """Whether the second name may come later as text, whatever a blank was before."""
    for here, there in zip(one.replace("_", " "), other.replace("_", " "), strict=False):
        if here != there:
            return " " in (here, there) or here < there
    return len(one) <= len(other)


def _are_codes(names: Sequence[str]) -> bool:
    """Whether they are hexadecimal (U+4E00) and equally long, which text sorts by value."""
    if len({*map(len, names)}) != 1:
        return False
    columns = zip(*names, strict=True)
    same = next((n for n, column in enumerate(columns) if len({*column}) > 1), 0)
    codes = [name[same:] for name in names]
    return all(map(_CODE.fullmatch, codes)) and not all(map(str.isdecimal, codes))


def _as_number(name: str) -> float | None:
    try:
        return float(_THOUSANDS.sub("", name)) if re.search(r"\d", name) else None
    except ValueError:
        return None


def _numbers(name: str) -> list[int]:
    return sorted(int(token) for token in re.findall(r"\d{1,300}", name))


def _tokens(name: str) -> set[str | int]:
    found = _TOKEN.findall(name.casefold())
    return {int(token) if token[0].isdecimal() else token for token in found}
