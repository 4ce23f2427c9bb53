"""Names against globs: a matrix of 10,000 ids is held against the same few lists of patterns.

`fnmatch.fnmatchcase` looks a pattern up for every name that it is asked about; here each list is
one regular expression, translated once per process.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import translate
from functools import cache

__all__ = ["matches_any", "unmatched"]


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return whether one of some globs matches a whole name, its case as it is.

    The same as `fnmatch.fnmatchcase` of each; none matches where there is none.

    >>> matches_any("vit/rtn:w4/id.ece", ("resnet/*", "*.ece"))
    True
    >>> matches_any("vit/rtn:w4/id.ece", ())
    False
    """
    found = _together(tuple(patterns))
    return found is not None and found.match(name) is not None


def unmatched(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the globs that match none of some names.

    >>> unmatched(("vit*", "siglip"), ["vit-clean", "resnet"])
    ['siglip']
    """
    return [one for one in patterns if not any(matches_any(name, (one,)) for name in names)]


@cache
def _together(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, patterns))) if patterns else None
