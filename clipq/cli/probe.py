"""`clipq probe`: whether the probes are what they should be, and bringing them here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.context import settings_of
from clipq.cli.progress import Progress, watching
from clipq.errors import ProbeError
from clipq.settings import ProbeSettings, Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.cli.checked_probe import Check, TextCheck

__all__ = ["declare", "run"]


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq probe` to the command line."""
    probe = commands.add_parser(
        "probe",
        help="check that probes are what they should be, or fetch those that are elsewhere",
        description="Check: every shard and image is read, counts, class map and checksums are "
        "verified, images are compared with those of the calibration split (and, out of "
        "distribution, with the in-distribution probe's), what will be missing later is said, and "
        "a contact sheet is written. Settings need no models and no matrix for it.",
    )
    kinds = probe.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = kinds.add_parser("check", help="read and verify everything, write contact sheets")
    check.add_argument("probes", nargs="*", metavar="PROBE", help="default: all of them")
    check.add_argument(
        "--sheets", type=Path, metavar="DIR", help="where PNGs go; default: beside the cache"
    )
    check.add_argument(
        "--json", action="store_true", help="print one JSON document, with every shared image"
    )
    fetch = kinds.add_parser("fetch", help="bring probes here whose source is elsewhere: a URL")
    fetch.add_argument("probes", nargs="*", metavar="PROBE", help="default: all with a URL")
    for action in (check, fetch):
        action.add_argument("--quiet", action="store_true", help="no progress")
    probe.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check or fetch probes; return 1 where a check failed."""
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options, data_alone=True)
    load_plugins(settings)
    if options.action == "fetch":
        with watching(options, unit="shard") as watch:
            return _fetch(settings, options.probes, watch)
    with watching(options, unit="image") as watch:
        return _check(settings, options, watch)


def _checks() -> tuple[Check, ...]:
    """Return what is asked of every probe that is good: each returns sentences, or none."""
    from clipq.cli.checked_probe import lacking
    from clipq.cli.label_checks import missing_classes
    from clipq.data.pixel_remarks import pixel_remarks
    from clipq.evaluation.cluster_facts import cluster_remarks

    return (
        lacking,
        missing_classes,
        lambda checked: pixel_remarks(checked.probe),
        lambda checked: cluster_remarks(checked.probe, checked.calibration),
    )


def _text_checks() -> tuple[TextCheck, ...]:
    """Return what is asked of every probe for every model's tokenizer."""
    from clipq.cli.label_checks import odd_texts

    return (odd_texts,)


def _check(settings: Settings, options: argparse.Namespace, watch: Progress) -> int:
    """Read and verify the chosen probes; return 1 where one is not what it should be."""
    from clipq.cli.checked_probe import Checker

    chosen = _chosen(settings, options.probes)
    checker = Checker(settings, options.sheets, _checks(), _text_checks(), watch)
    found = []
    for done, declared in enumerate(chosen):
        watch.step(declared.name, done, len(chosen))
        one = checker.check(declared)
        found.append(one)
        watch.clear()
        if not options.json:
            say(f"{one}\n")
    watch.step("all", len(chosen), len(chosen))
    watch.clear()
    good = [one for one in found if not one.problem]
    remarked = sum(bool(one.remarks) for one in good)
    if options.json:
        emit(json.dumps([one.document() for one in found], indent=1))
    else:
        said = f", {remarked} of them with remarks" if remarked else ""
        say(f"{len(good)} of {len(chosen)} probes are good{said}")
    return 0 if len(good) == len(chosen) else 1


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
            cache=settings.cache,
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
