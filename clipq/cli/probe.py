"""`clipq probe`: whether the probes are what they should be, and bringing them here."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cli.context import settings_of
from clipq.cli.progress import Progress, watching
from clipq.errors import ClipqError, ProbeError
from clipq.settings import ProbeSettings, Settings
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.data import Probe

__all__ = ["declare", "run"]


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq probe` to the command line."""
    probe = commands.add_parser(
        "probe",
        help="check that probes are what they should be, or fetch those that are elsewhere",
        description="Check: every shard and image is read, counts, class map and checksums are "
        "verified, images are compared with those of the calibration split (and, out of "
        "distribution, with the in-distribution probe's), and a contact sheet is written.",
    )
    kinds = probe.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = kinds.add_parser("check", help="read and verify everything, write contact sheets")
    check.add_argument("probes", nargs="*", metavar="PROBE", help="default: all of them")
    check.add_argument(
        "--sheets", type=Path, metavar="DIR", help="where PNGs go; default: beside the cache"
    )
    fetch = kinds.add_parser("fetch", help="bring probes here whose source is elsewhere: a URL")
    fetch.add_argument("probes", nargs="*", metavar="PROBE", help="default: all with a URL")
    for action in (check, fetch):
        action.add_argument("--quiet", action="store_true", help="no progress")
    probe.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check or fetch probes; return 1 where a check failed."""
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options)
    load_plugins(settings)
    if options.action == "fetch":
        with watching(options, unit="shard") as watch:
            return _fetch(settings, options.probes, watch)
    with watching(options, unit="image") as watch:
        return _check(settings, options, watch)


def _check(settings: Settings, options: argparse.Namespace, watch: Progress) -> int:
    """Read and verify the chosen probes; return 1 where one is not what it should be."""
    from clipq.data import unreadable_images, without
    from clipq.data.contact_sheet import contact_sheet
    from clipq.evaluation.cluster_facts import cluster_remarks

    chosen = _chosen(settings, options.probes)
    folder = options.sheets or settings.cache.parent / "probes"
    opened: dict[str, Probe] = {}
    failed = 0
    for done, declared in enumerate(chosen):
        watch.step(declared.name, done, len(chosen))
        sheet = folder / f"{declared.name}.png"
        try:
            seen = _seen(settings, declared)
            probe = _opened(settings, declared, opened)
            broken = unreadable_images(probe)
            probe = opened[declared.name] = without(probe, broken, most=declared.unreadable)
            _check_leakage(settings, probe, opened)
            shown = contact_sheet(probe, sheet)
        except ClipqError as error:
            failed += 1
            watch.clear()
            say(f"{declared.name}: WRONG\n  {error}\n")
            continue
        rows = [("source", seen), *_facts(probe, sheet, len(shown))]
        calibration = opened.get(settings.calibration.name)
        rows += [("remark", remark) for remark in cluster_remarks(probe, calibration)]
        if broken:
            reasons = "; ".join(reason for _, reason in broken[:3])
            rows.append(("left out", f"{len(broken)} images that do not decode: {reasons}"))
        watch.clear()
        facts = tabulate(rows, tablefmt="plain")
        say(f"{declared.name}: good\n{facts}\n")
    watch.step("all", len(chosen), len(chosen))
    watch.clear()
    say(f"{len(chosen) - failed} of {len(chosen)} probes are good")
    return 1 if failed else 0


def _chosen(settings: Settings, names: Sequence[str]) -> list[ProbeSettings]:
    """Return the probes that are named, all by default; a pooled one is its members.

    Raises:
        SettingsError: there is none of a name.
    """
    asked = [settings.probe(name) for name in names] or list(settings.probes)
    found: dict[str, ProbeSettings] = {}
    for probe in asked:
        members = settings.members(probe.name) if probe.role == "pooled" else (probe,)
        found |= {member.name: member for member in members}
    return list(found.values())


def _fetch(settings: Settings, names: list[str], watch: Progress) -> int:
    """Bring probes here whose source is elsewhere; each source and split once."""
    from clipq.data import fetch_probe

    chosen = _chosen(settings, names)
    done: set[tuple[str, str]] = set()
    for declared in chosen:
        if (declared.source, declared.split) in done:
            continue
        root = fetch_probe(
            name=declared.name,
            source=declared.source,
            split=declared.split,
            base_dir=settings.root,
            progress=partial(watch, declared.name),
        )
        if root is None:
            if names:
                raise ProbeError(
                    f"probe {declared.name!r}: {declared.source} is not fetched",
                    hint="of clipq's own sources, webdataset:https://... is; docs/probes.md says "
                    "how to bring other data here",
                )
            continue
        done.add((declared.source, declared.split))
        watch.clear()
        say(f"{declared.name}: in {root}")
    say(f"{len(done)} fetched" if done else "no probe lies elsewhere: nothing to fetch")
    return 0


def _opened(settings: Settings, declared: ProbeSettings, opened: dict[str, Probe]) -> Probe:
    """Return a probe, opened once.

    Raises:
        ProbeError: it cannot be opened.
    """
    from clipq.data import open_declared

    if declared.name not in opened:
        opened[declared.name] = open_declared(declared, base_dir=settings.root)
    return opened[declared.name]


def _seen(settings: Settings, declared: ProbeSettings) -> str:
    """Return a probe's source, and what is there by a look.

    Raises:
        ClipqError: opening it would fail: nothing is read of a probe that lacks a part.
    """
    from clipq.data import look_at_probe

    counts = look_at_probe(
        name=declared.name,
        role=declared.role,
        source=declared.source,
        split=declared.split,
        base_dir=settings.root,
    )
    return ", ".join([declared.source, *(f"{count:,} {what}" for what, count in counts.items())])


def _check_leakage(settings: Settings, probe: Probe, opened: dict[str, Probe]) -> None:
    """Compare a probe with the calibration split and, if it is out of distribution, with the other.

    Raises:
        ProbeError: they share an image, or the other one cannot be opened.
    """
    from clipq.data import check_disjoint

    against = [settings.calibration]
    if probe.role == "ood":
        against.append(settings.in_distribution)
    for declared in against:
        if declared.name != probe.name:
            check_disjoint(_opened(settings, declared, opened), probe)


def _facts(probe: Probe, sheet: Path, shown: int) -> list[tuple[str, str]]:
    from clipq.evaluation.cluster_facts import cluster_fact

    counts = Counter(probe.labels.tolist())
    facts = [
        ("role", probe.role),
        ("samples", f"{len(probe):,}"),
        ("fingerprint", probe.fingerprint[:16]),
    ]
    if probe.role not in ("ood", "retrieval"):
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
        facts.append(("captions", f"{probe.captions[0]!r} ..."))
    return [*facts, ("shared images", "none"), ("contact sheet", f"{sheet} ({shown} samples)")]
