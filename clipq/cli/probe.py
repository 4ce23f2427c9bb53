"""`clipq probe`: what the probes are, and whether they are what they should be."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from clipq.data import Probe, check_disjoint, open_declared
from clipq.data.contact_sheet import contact_sheet
from clipq.errors import ClipqError
from clipq.evaluation.plan import load_plugins
from clipq.settings import ProbeSettings, Settings

__all__ = ["run"]

_ROLES = {
    "in-distribution": "accuracy, calibration and churn; its classes make the zero-shot head",
    "calibration": "activation ranges and the temperature; never evaluated on",
    "ood": "is it told from the in-distribution probe?",
}


def run(settings: Settings, options: argparse.Namespace) -> int:
    """List or check probes; return 1 where a check failed."""
    load_plugins(settings)
    if options.action == "list":
        rows = [(p.name, p.role, f"{p.source} {p.split}", _ROLES[p.role]) for p in settings.probes]
        print(tabulate(rows, ("probe", "role", "source, split", "what it is for")))
        return 0
    chosen = [settings.probe(name) for name in options.probes] or list(settings.probes)
    folder = options.sheets or settings.cache.parent / "probes"
    opened: dict[str, Probe] = {}
    failed = 0
    for declared in chosen:
        sheet = folder / f"{declared.name}.png"
        try:
            probe = _opened(settings, declared, opened)
            _check_leakage(settings, probe, opened)
            shown = contact_sheet(probe, sheet)
        except ClipqError as error:
            failed += 1
            print(f"{declared.name}: WRONG\n  {error}\n")
            continue
        facts = tabulate(_facts(probe, sheet, len(shown)), tablefmt="plain")
        print(f"{declared.name}: good\n{facts}\n")
    print(f"{len(chosen) - failed} of {len(chosen)} probes are good")
    return 1 if failed else 0


def _opened(settings: Settings, declared: ProbeSettings, opened: dict[str, Probe]) -> Probe:
    """Return a probe, opened once.

    Raises:
        ProbeError: it cannot be opened.
    """
    if declared.name not in opened:
        opened[declared.name] = open_declared(declared, base_dir=settings.root)
    return opened[declared.name]


def _check_leakage(settings: Settings, probe: Probe, opened: dict[str, Probe]) -> None:
    """Compare a probe with the calibration split and, if it is out of distribution, with the other.

    Raises:
        ProbeError: they share an image, or the other one cannot be opened.
    """
    against = [settings.calibration]
    if probe.role == "ood":
        against.append(settings.in_distribution)
    for declared in against:
        if declared.name != probe.name:
            check_disjoint(_opened(settings, declared, opened), probe)


def _facts(probe: Probe, sheet: Path, shown: int) -> list[tuple[str, str]]:
    counts = Counter(probe.labels.tolist())
    facts = [
        ("role", probe.role),
        ("samples", f"{len(probe):,}"),
        ("fingerprint", probe.fingerprint[:16]),
    ]
    if probe.role != "ood":
        sizes = f"{min(counts.values()):,} to {max(counts.values()):,} samples each"
        facts.append(("classes", f"{len(probe.classnames)}, {sizes}"))
        facts.append(("prompts", f"{len(probe.templates)} templates, {probe.templates[0]!r} ..."))
    if any(probe.groups):
        groups = Counter(probe.groups).most_common()
        text = ", ".join(f"{name} ({count:,})" for name, count in groups[:6])
        facts.append(("groups", f"{len(groups)}: {text}{' ...' if len(groups) > 6 else ''}"))
    if probe.captions is not None:
        facts.append(("captions", f"{probe.captions[0]!r} ..."))
    return [*facts, ("shared images", "none"), ("contact sheet", f"{sheet} ({shown} samples)")]
