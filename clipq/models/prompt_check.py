"""What a tokenizer makes of prompts and captions that a reader should know of.

A text that is longer than the context is cut without a word, and names that differ in case or in
underscores alone may be the same tokens: then two classes have one embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipq.errors import listed
from clipq.models.loading import Tokenizer

__all__ = ["CutText", "caption_remarks", "cut_texts", "prompt_remarks", "same_tokens"]

_LONGER, _MOST = 4, 64
"""Texts are tokenized to so many times the context, and again to more until they fit."""
_SPECIAL = 3
"""Tokens that a tokenizer may put around a text; one of its own takes a byte at least."""


@dataclass(frozen=True, slots=True)
class CutText:
    """A text, by its position, that takes more tokens than a model reads.

    >>> CutText(0, tokens=81, allowed=77).tokens
    81
    """

    position: int
    tokens: int
    allowed: int


def cut_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[CutText]:
    """Return the texts of which a tokenizer cuts the end off.

    Found by asking for more tokens, up to 64 times the context; empty where a tokenizer does not
    take a `context_length`, as open_clip's do, for then nobody can tell.

    >>> from open_clip import SimpleTokenizer
    >>> cut_texts(SimpleTokenizer(context_length=6), ["a red fox", "a fox in the red snow"])
    [CutText(position=1, tokens=8, allowed=6)]
    """
    if not texts:
        return []
    allowed = int(tokenizer([texts[0]]).shape[1])
    at = [i for i, text in enumerate(texts) if len(text.encode()) + _SPECIAL > allowed]
    if not at:
        return []
    asked: Any = tokenizer
    short = tokenizer([texts[i] for i in at]).cpu().numpy()
    factor = _LONGER
    while True:
        try:
            long = asked([texts[i] for i in at], context_length=factor * allowed).cpu().numpy()
            empty = asked([""], context_length=factor * allowed).cpu().numpy()
        except Exception:  # somebody's own, which takes no length, or no such length
            return []
        # From where on is a text as one that is empty?
        differs = long != empty
        counts = np.where(differs.any(axis=1), long.shape[1] - differs[:, ::-1].argmax(axis=1), 0)
        if factor >= _MOST or counts.max() < long.shape[1] - _SPECIAL:
            break
        factor *= _LONGER
    return [
        CutText(i, int(count), allowed)
        for i, count, ours, theirs in zip(at, counts, short, long, strict=True)
        if count > allowed or not np.array_equal(ours[:count], theirs[:count])
    ]


def same_tokens(
    tokenizer: Tokenizer, classnames: Sequence[str], templates: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return the classes, by their positions, whose prompts are the same tokens in any template.

    >>> from open_clip import SimpleTokenizer
    >>> tokenizer = SimpleTokenizer(context_length=16)
    >>> same_tokens(tokenizer, ["Star", "fox", "star"], ["a {c}.", "the {c}."])
    [(0, 2)]
    """
    groups: list[Sequence[int]] = [range(len(classnames))]
    for template in templates:
        divided: list[Sequence[int]] = []
        for group in groups:
            alike: dict[bytes, list[int]] = {}
            rows = tokenizer([template.replace("{c}", classnames[i]) for i in group]).cpu().numpy()
            for position, row in zip(group, rows, strict=True):
                alike.setdefault(row.tobytes(), []).append(position)
            divided += [members for members in alike.values() if len(members) > 1]
        groups = divided
        if not groups:
            break
    return sorted(tuple(group) for group in groups)


def prompt_remarks(
    tokenizer: Tokenizer, classnames: Sequence[str], templates: Sequence[str]
) -> list[str]:
    """Return what is odd about the prompts of a zero-shot head, a sentence each.

    >>> from open_clip import SimpleTokenizer
    >>> prompt_remarks(SimpleTokenizer(context_length=16), ["Star", "star"], ["a {c}."])
    ["classes 'Star' = 'star' are the same tokens: the first of them is predicted, never another"]
    """
    remarks = []
    twins = same_tokens(tokenizer, classnames, templates)
    if twins:
        named = listed([" = ".join(repr(classnames[i]) for i in group) for group in twins])
        remarks.append(
            f"classes {named} are the same tokens: the first of them is predicted, never another"
        )
    texts = [template.replace("{c}", name) for name in classnames for template in templates]
    cut = cut_texts(tokenizer, texts)
    if cut:
        cut.sort(key=lambda one: (-one.tokens, one.position))
        named = listed(
            [
                f"class {classnames[one.position // len(templates)]!r} in template "
                f"{templates[one.position % len(templates)]!r} takes {one.tokens}"
                for one in cut
            ]
        )
        remarks.append(
            f"{len(cut):,} of {len(texts):,} prompts are longer than the {cut[0].allowed} tokens "
            f"that the model reads, and are cut: {named}"
        )
    return remarks


def caption_remarks(tokenizer: Tokenizer, name: str, captions: Sequence[str]) -> list[str]:
    """Return what is odd about the captions of the probe `name`, a sentence each.

    >>> from open_clip import SimpleTokenizer
    >>> caption_remarks(SimpleTokenizer(context_length=16), "captions", ["a fox"])
    []
    """
    cut = cut_texts(tokenizer, captions)
    if not cut:
        return []
    cut.sort(key=lambda one: (-one.tokens, one.position))
    named = listed([f"{captions[one.position]!r} takes {one.tokens}" for one in cut])
    return [
        f"probe {name!r}: {len(cut):,} of {len(captions):,} captions are longer than the "
        f"{cut[0].allowed} tokens that the model reads, and are cut: {named}"
    ]
