"""What is different where hashes are: samples, classes, templates, preprocessing, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipq.errors import listed
from clipq.evaluation.subject import Subject

__all__ = ["Difference"]

_NAMED = 3
_MODEL_FILES = {
    "weights_sha256": "the model's weights are others",
    "config_sha256": "the model's configuration is another",
    "tokenizer_sha256": "the model's tokenizer is another",
}


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Says of each part of an identity that differs what is different about it.

    Args:
        was: what the baseline was made with.
        now: what is here.
        probe: the probe that is compared.
        known: the in-distribution probe.
        calibration: the calibration split.
    """

    was: Subject
    now: Subject
    probe: str
    known: str
    calibration: str

    def said(self, before: Mapping[str, str], after: Mapping[str, str]) -> str:
        """Return a sentence for each part that differs, joined; "" where none does.

        Args:
            before: identity of the baseline's results on the probe.
            after: identity of what is measured now.
        """
        differing = [name for name, value in after.items() if before.get(name) != value]
        if self.probe == self.known and "probe" in differing and "in_distribution" in differing:
            differing.remove("in_distribution")
        parts = (self.of(name, before.get(name), after.get(name)) for name in differing)
        return "; ".join(dict.fromkeys(parts))

    def of(self, name: str, before: str | None, after: str | None) -> str:
        """Return what is different about one part of an identity, whose values differ."""
        match name:
            case "probe":
                return self._of_probe(self.probe)
            case "in_distribution":
                return self._of_probe(self.known)
            case "calibration":
                return self._of_probe(self.calibration)
            case "prompts":
                return self._of_prompts()
            case "preprocess":
                return f"preprocessing: {_fields(before, after)}"
            case "logit_map":
                return self._of_logits()
            case _ if name in _MODEL_FILES:
                hashes = f"{name} is {_short(after)}, the baseline was made with {_short(before)}"
                return f"{_MODEL_FILES[name]}: {hashes}"
            case "columns":
                return (
                    f"clipq's columns are version {after}, the baseline's {before}: approve it anew"
                )
            case _:
                return f"{name} is {after}, the baseline was made with {before}"

    def _of_probe(self, probe: str) -> str:
        was, now = (one.samples.get(probe, {}) for one in (self.was, self.now))
        found = [] if not was or not now else list(_samples(was, now, self._classes(probe)))
        found += self._declared(probe)
        if not found:
            found = [
                "its images, classes, captions or class map are others; the baseline keeps no more "
                "than their hash"
            ]
        return f"probe {probe!r}: {'; '.join(found)}"

    def _classes(self, probe: str) -> tuple[Sequence[str], Sequence[str]]:
        was, now = (
            one.facts.own_classes.get(probe, one.facts.classes) if one.facts else ()
            for one in (self.was, self.now)
        )
        return was, now

    def _declared(self, probe: str) -> Iterator[str]:
        if self.was.facts is None or self.now.facts is None:
            return
        was, now = (one.facts.probes.get(probe) for one in (self.was, self.now) if one.facts)
        if was is None or now is None:
            return
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                yield f"{key} is {now.get(key, 'not given')}, was {was.get(key, 'not given')}"
        own = [one.facts.own_classes.get(probe) for one in (self.was, self.now) if one.facts]
        if own[0] != own[1]:
            yield _listed("class", own[0] or (), own[1] or ())

    def _of_prompts(self) -> str:
        if self.was.facts is None or self.now.facts is None:
            return (
                f"class names or templates of {self.known!r} are others; the baseline keeps no "
                "more than their hash"
            )
        parts = [
            _listed("class", self.was.facts.classes, self.now.facts.classes),
            _listed("template", self.was.facts.templates, self.now.facts.templates),
        ]
        return "; ".join(part for part in parts if part)

    def _of_logits(self) -> str:
        was, now = self.was.facts, self.now.facts
        if was is None or now is None:
            return "the model's logit scale or bias is another"
        return (
            f"logit scale and bias are {now.logit_scale:.8g} and {now.logit_bias:.8g}, were "
            f"{was.logit_scale:.8g} and {was.logit_bias:.8g}"
        )


def _samples(
    was: Mapping[str, np.ndarray],
    now: Mapping[str, np.ndarray],
    classes: tuple[Sequence[str], Sequence[str]],
) -> Iterator[str]:
    """Yield what differs between the samples of a probe then and now."""
    before, after = was["id"].tolist(), now["id"].tolist()
    if len(before) != len(after):
        yield f"{len(after):,} samples, not {len(before):,}"
    missing, new = (
        [name for name in one if name not in other]
        for one, other in ((before, dict.fromkeys(after)), (after, dict.fromkeys(before)))
    )
    if missing:
        yield f"missing {listed(missing)}"
    if new:
        yield f"new {listed(new)}"
    if not missing and not new and before != after:
        yield "the same samples in another order"
    place = {name: at for at, name in enumerate(before)}
    shared = [(place[name], at) for at, name in enumerate(after) if name in place]
    for column, what in (("image", "image"), ("caption", "caption"), ("group", "group")):
        if column in was and column in now:
            changed = [at for then, at in shared if was[column][then] != now[column][at]]
            if changed:
                names = listed([after[at] for at in changed])
                yield f"another {what} of {len(changed):,} samples: {names}"
    relabelled = [
        (after[at], _class(classes[0], was["label"][then]), _class(classes[1], now["label"][at]))
        for then, at in shared
        if was["label"][then] != now["label"][at]
    ]
    moved = [one for one in relabelled if one[1] != one[2]]  # else the class list was reordered
    if moved:
        name, old, new_class = moved[0]
        yield f"another label of {len(moved):,} samples: {name} is {new_class}, was {old}"
    elif relabelled:
        yield "the same classes in another order"


def _class(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _fields(before: str | None, after: str | None) -> str:
    """Return which fields of two preprocessing configurations differ.

    >>> _fields('{"mean":[0.5],"size":32}', '{"mean":[0.4],"size":32}')
    'mean is [0.4], was [0.5]'
    """
    was, now = (_parsed(text) for text in (before, after))
    said = [
        f"{key} is {now.get(key, 'not given')}, was {was.get(key, 'not given')}"
        for key in sorted({*was, *now})
        if was.get(key) != now.get(key)
    ]
    return "; ".join(said) or f"it is {after}, was {before}"


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _listed(what: str, was: Sequence[str], now: Sequence[str]) -> str:
    """Return how a list of classes or templates changed; "" where it did not.

    >>> _listed("class", ["heart", "star"], ["heart symbol", "star"])
    "class 'heart' is now 'heart symbol'"
    >>> _listed("class", ["heart", "star"], ["star"]), _listed("class", ["a", "b"], ["b", "a"])
    ("class 'heart' is gone", 'the same classes in another order')
    """
    if tuple(was) == tuple(now):
        return ""
    plural = {"class": "classes"}.get(what, f"{what}s")
    gone, new = ([one for one in a if one not in b] for a, b in ((was, now), (now, was)))
    if not gone and not new:
        return f"the same {plural} in another order"
    renamed = [(a, b) for a, b in zip(was, now, strict=False) if a != b]
    if len(was) == len(now) and len(renamed) == len(gone) == len(new):
        said = [f"{old!r} is now {other!r}" for old, other in renamed[:_NAMED]]
        more = f", and {len(renamed) - _NAMED:,} more" if len(renamed) > _NAMED else ""
        return f"{what} {', '.join(said)}{more}"
    parts = []
    for names, verb in ((gone, "gone"), (new, "new")):
        if names:
            many = len(names) > 1
            quoted = listed([repr(name) for name in names])
            parts.append(f"{plural if many else what} {quoted} {'are' if many else 'is'} {verb}")
    return "; ".join(parts)


def _short(value: str | None) -> str:
    return "absent" if value is None else f"{value[:12]}..."
