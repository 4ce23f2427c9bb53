"""The study's page: one HTML file that needs nothing else, and no network."""

from __future__ import annotations

import html as markup
from collections.abc import Mapping
from typing import Any

from clipq.study.page_packing import Packed, pack
from clipq.terminal import printable
from clipq.web import embed, page_policy, page_script, page_styles, page_template

__all__ = ["study_page"]


def study_page(document: Mapping[str, Any], *, title: str = "Quantized CLIP models") -> str:
    """Return a study document (``clipq-study/1``) as one HTML file.

    The page shows tables, figures and claims and advises on a quantizer; docs/study.md says how to
    read it. Nothing in it can be fetched, and texts stay texts, whatever they hold.

    Args:
        document: as `study_document` makes it.
        title: of the page.

    Raises:
        StudyError: it is no study document.

    >>> lists = ("models", "columns", "costs", "configurations", "figures", "claims")
    >>> nothing = dict.fromkeys(lists, ()) | {"advice": {}, "provenance": {}, "towers": "vision"}
    >>> page = study_page({"schema": "clipq-study/1", "kind": "study"} | nothing, title="w4 and w8")
    >>> "<title>w4 and w8: clipq study</title>" in page
    True
    """
    packed = pack(document)
    style, script = page_styles("study/study.css"), page_script("study/main.js")
    return page_template("study/page.html").substitute(
        policy=page_policy(style, script),
        title=_text(title),
        lead=_text(_lead(packed)),
        answers="".join(
            f"<li>{_text(f'{name}: {answer}')}</li>" for name, answer in packed.answers
        ),
        style=style,
        data=embed(packed.plain),
        script=script,
    )


def _lead(packed: Packed) -> str:
    """Return how much was measured, in a sentence."""
    counts = (
        (packed.models, "model"),
        (packed.configurations, "configuration"),
        (packed.units, "unit"),
        (packed.numbers, "number"),
    )
    said = [f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts if count]
    if not said:
        return "Nothing was measured."
    if len(said) == 1:
        return f"{said[0]}."
    return f"{', '.join(said[:-1])} and {said[-1]}, each against FP32."


def _text(value: str) -> str:
    """Escape markup, and what cannot be shown or encoded."""
    return markup.escape(printable(value))
