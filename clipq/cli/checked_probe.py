"""One probe as `clipq probe check` finds it: read whole, described, drawn, remarked upon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from clipq.data import (
    Leak,
    Pictures,
    Probe,
    check_disjoint,
    check_pictures_apart,
    facts_of_files,
    head_columns,
    leak,
    look_at_probe,
    open_declared,
    remarks_on_files,
    unreadable_images,
    without,
)
from clipq.data.contact_sheet import contact_sheet
from clipq.data.probe import CAPTIONED
from clipq.errors import ClipqError
from clipq.evaluation.cluster_facts import cluster_fact
from clipq.evaluation.inputs import caption_lines
from clipq.evaluation.known_labels import known_labels
from clipq.evaluation.needs import calibration_shortfalls, seen_loss, shortfalls
from clipq.evaluation.plan import metrics_of
from clipq.evaluation.proxy_pairs import check_pairs
from clipq.settings import UNEVALUATED, ModelSettings, ProbeSettings, Settings

__all__ = ["Check", "Checked", "Checker", "Finding", "TextCheck", "lacking"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check may look at: a probe that was read, and what it is used with."""

    probe: Probe
    declared: ProbeSettings
    settings: Settings
    known: Probe | None
    """The in-distribution probe, whose classes make the head; None where it cannot be opened."""
    calibration: Probe | None
    """The calibration split; None where it cannot be opened."""


Check = Callable[[Checked], Iterable[str]]
"""What is said of a probe that is good, a sentence each."""
TextCheck = Callable[[Checked, ModelSettings], Iterable[str]]
"""The same of what needs a model's tokenizer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of one probe found; good where there is no `problem`."""

    name: str
    facts: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    problem: str = ""
    leaks: tuple[Leak, ...] = ()

    def __str__(self) -> str:
        facts = list(self.facts) if self.problem else [*self.facts, ("shared images", "none")]
        state = f"WRONG\n  {self.problem}" if self.problem else "good"
        remarks = [f"  remark: {remark}" for remark in self.remarks]
        parts = [f"{self.name}: {state}", *([tabulate(facts, tablefmt="plain")] if facts else [])]
        return "\n".join([*parts, *remarks])

    def document(self) -> dict[str, Any]:
        """Return what JSON says: the same, and every shared image."""
        return {
            "name": self.name,
            "good": not self.problem,
            "problem": self.problem,
            "facts": dict(self.facts),
            "remarks": list(self.remarks),
            "shared": [
                {"with": one.other, "images": [{"ids": a, "other": b} for a, b in one.shared]}
                for one in self.leaks
            ],
        }


class Checker:
    """Reads and verifies probes, each opened once.

    Args:
        settings: that declare them.
        sheets: where contact sheets go; None for beside the cache.
        checks: what is asked of every probe that is good.
        text_checks: what is asked of it for every model; without models that is said.
        progress: told how far a probe is that is made.
    """

    def __init__(
        self,
        settings: Settings,
        sheets: Path | None,
        checks: Iterable[Check] = (),
        text_checks: Iterable[TextCheck] = (),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._progress = progress
        self._settings = settings
        self._sheets = sheets or settings.cache.parent / "probes"
        self._checks = tuple(checks)
        self._text_checks = tuple(text_checks)
        self._opened: dict[str, Probe] = {}

    def check(self, declared: ProbeSettings) -> Finding:
        """Return what is found of one probe: all of it, whatever is wrong first."""
        try:
            facts = [("source", self._seen(declared))]
            probe = self._open(declared)
            facts += facts_of_files(probe)
            pictures = Pictures()
            broken = unreadable_images(probe, tell=pictures.tell)
            remarks = [*remarks_on_files(probe), *pictures.remarks(probe.ids)]
            probe = self._opened[declared.name] = without(probe, broken, most=declared.unreadable)
            apart = [self._open(one) for one in self._kept_apart(declared)]
            sheet = self._sheets / f"{declared.name}.png"
            shown = contact_sheet(probe, sheet)
        except ClipqError as error:
            return Finding(declared.name, problem=str(error))
        problems = []
        for wrong in (
            partial(check_disjoint, probe, *apart),
            partial(self._check_labels, probe),
            partial(_check_pairs, probe, apart),
        ):
            try:
                wrong()
            except ClipqError as error:
                problems.append(str(error))
        with suppress(*([ClipqError] if problems else [])):  # of what is wrong with it already
            remarks += self._remarks(probe, declared)
        facts += [*_facts(probe), *self._seen_losses(probe)]
        facts.append(("contact sheet", f"{sheet} ({len(shown)} samples)"))
        if broken:
            reasons = "; ".join(reason for _, reason in broken[:3])
            facts.append(("left out", f"{len(broken)} images that do not decode: {reasons}"))
        leaks = tuple(found for other in apart if (found := leak(probe, other)))
        problem = "\n  ".join(problems)
        return Finding(declared.name, tuple(facts), tuple(remarks), problem, leaks)

    def _check_labels(self, probe: Probe) -> None:
        _check_labels(probe, self._tried(self._settings.in_distribution))

    def _seen_losses(self, probe: Probe) -> Iterable[tuple[str, str]]:
        if probe.role not in (*UNEVALUATED, "ood", "retrieval"):
            statistics = self._settings.statistics
            share, seen = statistics.disagreement, seen_loss(probe, statistics)
            text = "none: too few samples for a verdict"
            if seen is not None:
                text = f"of top-1 from {seen:.2g} on, where {share:.1%} of the answers change"
            yield "passes margins", text

    def _remarks(self, probe: Probe, declared: ProbeSettings) -> Iterable[str]:
        known, calibration = self._settings.in_distribution, self._settings.calibration
        checked = Checked(
            probe, declared, self._settings, self._tried(known), self._tried(calibration)
        )
        for check in self._checks:
            yield from check(checked)
        if not self._text_checks or probe.role not in ("in-distribution", *CAPTIONED):
            return
        if not self._settings.models:
            yield (
                "what needs a tokenizer was not checked, for the settings have no [[models]]: "
                "prompts that are too long, classes with the same tokens"
            )
        for model in self._settings.models:
            for text_check in self._text_checks:
                yield from text_check(checked, model)

    def _tried(self, declared: ProbeSettings) -> Probe | None:
        try:
            return self._open(declared)
        except ClipqError:
            return None  # its own check says why

    def _open(self, declared: ProbeSettings) -> Probe:
        """Return a probe, opened once.

        Raises:
            ProbeError: it cannot be opened.
        """
        if declared.name not in self._opened:
            settings = self._settings
            opened = open_declared(
                declared, base_dir=settings.root, cache=settings.cache, progress=self._progress
            )
            self._opened[declared.name] = opened
        return self._opened[declared.name]

    def _seen(self, declared: ProbeSettings) -> str:
        """Return a probe's source, and what is there by a look.

        Raises:
            ClipqError: opening it would fail: nothing is read of a probe that lacks a part.
        """
        counts = look_at_probe(
            name=declared.name,
            role=declared.role,
            source=declared.source,
            split=declared.split,
            base_dir=self._settings.root,
            cache=self._settings.cache,
        )
        seen = (f"{count:,} {what}" for what, count in counts.items())
        return ", ".join([declared.source, *seen])

    def _kept_apart(self, declared: ProbeSettings) -> list[ProbeSettings]:
        """Return the probes that must not share an image with this one.

        Of those that are pooled with it, those that read their images from another place.
        """
        if declared.role == "proxy":
            return [one for one in self._settings.evaluated if one.role != "pooled"]
        apart = [self._settings.calibration]
        if declared.role == "ood":
            apart.append(self._settings.in_distribution)
        for pooled in self._settings.probes_of("pooled"):
            members = self._settings.members(pooled.name)
            if declared in members:
                place = (declared.source, declared.split)
                apart += [one for one in members if (one.source, one.split) != place]
        return [one for one in dict.fromkeys(apart) if one.name != declared.name]


def _check_labels(probe: Probe, known: Probe | None) -> None:
    """Refuse a probe whose classes, or labels, are not found in the zero-shot head.

    Raises:
        ProbeError: they are not.
    """
    if known is None or probe.role in ("in-distribution", "ood", *CAPTIONED):
        return
    if probe.role == "calibration":
        known_labels(probe, known)
    else:
        head_columns(probe.name, probe.classnames, probe.class_map, known.classnames)


def _check_pairs(probe: Probe, apart: Iterable[Probe]) -> None:
    """Refuse a proxy that nothing is learnt from, or that shows pictures that are evaluated on.

    Raises:
        ProbeError: it is one.
    """
    if probe.role == "proxy":
        check_pairs(probe, *caption_lines(probe.captions or ()))
        check_pictures_apart(probe, *apart)


def lacking(checked: Checked) -> list[str]:
    """Return what a probe is too small for, or lacks, for the metrics that are computed on it."""
    if checked.probe.role == "calibration":
        return calibration_shortfalls(checked.probe)
    if checked.probe.role == "proxy":
        return []  # without enough to train on it is wrong
    chosen = metrics_of(checked.settings, checked.declared)
    return shortfalls(checked.probe, chosen, checked.known)


def _facts(probe: Probe) -> list[tuple[str, str]]:
    counts = Counter(probe.labels.tolist())
    facts = [
        ("role", probe.role),
        ("samples", f"{len(probe):,}"),
        ("fingerprint", probe.fingerprint[:16]),
    ]
    if probe.role not in ("ood", *CAPTIONED):
        sizes = f"{min(counts.values()):,} to {max(counts.values()):,} samples each"
        facts.append(("classes", f"{len(probe.classnames)}, {sizes}"))
        facts.append(("prompts", f"{len(probe.templates)} templates, {probe.templates[0]!r} ..."))
    if any(probe.groups):
        groups = Counter(probe.groups).most_common()
        text = ", ".join(f"{name} ({count:,})" for name, count in groups[:6])
        facts.append(("groups", f"{len(groups)}: {text}{' ...' if len(groups) > 6 else ''}"))
    if clusters := cluster_fact(probe):
        facts.append(("clusters", clusters))
    if probe.captions is not None:
        lines, _ = caption_lines(probe.captions)
        facts.append(("captions", f"{len(lines):,}, {lines[0]!r} ..."))
    return facts
