"""`clipq inspect`: one model x quantizer beside FP32, by group, bin, set or frequency."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.cases import Candidate
from clipq.cli.context import settings_of
from clipq.cli.only_quantizers import refuse_artifact
from clipq.cli.progress import watching
from clipq.files import write_atomically
from clipq.settings import Settings
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.evaluation.evaluator import Evaluator
    from clipq.evaluation.inspection import Table

__all__ = ["declare", "run"]

_INNER = "feature map by spatial frequency"
WHAT = {
    "groups": "accuracy, ECE and true-positive rate of each group of PROBE",
    "calibration": "the reliability diagram's data of PROBE (default: in-distribution)",
    "ood": "near and far sets by every score, as OpenOOD tabulates them",
    "spectra": "energy, SQNR and accuracy by rank; spatial frequencies; sensitivity to gratings",
}


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq inspect` to the command line."""
    inspect = commands.add_parser(
        "inspect",
        help="a closer look at one model x quantizer or artifact beside FP32",
        description="Measures and prints; judges nothing. What: "
        + "; ".join(f"{name}: {text}" for name, text in WHAT.items())
        + ".",
    )
    inspect.add_argument("what", choices=tuple(WHAT))
    inspect.add_argument(
        "where", metavar="MODEL/QUANTIZER[/PROBE]", help="for example vit-clean/rtn:w4/corruptions"
    )
    inspect.add_argument("--json", type=Path, metavar="FILE", help="also write the tables here")
    inspect.add_argument(
        "--local", action="store_true", help="ood: also the GL-MCM score of patches"
    )
    inspect.add_argument("--ranks", action="store_true", help="spectra: also every single rank")
    inspect.add_argument("--quiet", action="store_true", help="no progress")
    inspect.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the tables asked for, and write them as JSON where told so."""
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options)
    from clipq.evaluation.evaluator import Evaluator

    load_plugins(settings)
    candidate, probe = _place(options.where, settings)
    if options.local:
        instead = "clipq inspect ood '{}' --local"
        refuse_artifact(candidate, settings, needs="patches to look at", instead=instead)
    with watching(options, unit="image") as watch:
        evaluator = Evaluator(settings, progress=watch)
        tables = _tables(evaluator, options, candidate, probe)
    for title, table in tables.items():
        shown = [tuple(_text(value) for value in row) for row in table.rows]
        say(f"{candidate.model} {candidate.quantizer}, {title}")
        say(tabulate(shown, table.headers, disable_numparse=True))
        say(f"{table.note}\n" if table.note else "")
    if options.json is not None:
        plain = {title: table.to_plain() for title, table in tables.items()}
        document = {"model": candidate.model, "quantizer": candidate.quantizer, "tables": plain}
        write_atomically(options.json, (json.dumps(document, indent=1) + "\n").encode())
        say(f"written: {options.json}")
    return 0


def _tables(
    evaluator: Evaluator, options: argparse.Namespace, candidate: Candidate, probe: str
) -> dict[str, Table]:
    from clipq.evaluation import inspection, spectrum

    known = probe or evaluator.settings.in_distribution.name
    if options.what == "groups":
        return {f"{known} by group": inspection.by_group(evaluator, candidate.on(known))}
    if options.what == "calibration":
        return {f"{known} by confidence": inspection.by_bin(evaluator, candidate.on(known))}
    if options.what == "ood":
        detection = inspection.detection(evaluator, candidate, local=options.local)
        return {"out-of-distribution detection": detection}
    of: dict[str, Callable[[Evaluator, Candidate], Table]] = {
        "bands of ranks": spectrum.by_band,
        _INNER: spectrum.by_frequency,
        "features under gratings": spectrum.by_grating,
    }
    if options.ranks:
        of["ranks"] = spectrum.by_rank
    if evaluator.encoders.is_artifact(candidate):  # only what comes out of it is seen
        del of[_INNER]
        say(f"clipq: note: no {_INNER}: an artifact shows none", error=True)
    return {title: table(evaluator, candidate) for title, table in of.items()}


def _place(text: str, settings: Settings) -> tuple[Candidate, str]:
    """Return candidate and probe ("" for none) of ``MODEL/QUANTIZER[/PROBE]``."""
    from clipq.quant import QuantizerSpec

    named = Candidate.parse(text)
    quantizer, slash, probe = named.quantizer.rpartition("/")
    if not slash or ("=" in quantizer and probe not in [p.name for p in settings.probes]):
        quantizer, probe = named.quantizer, ""  # the slash is an option's: exclude=blocks.0/*
    model = settings.model(named.model).name
    candidate = Candidate(model, quantizer)
    if settings.artifact(candidate) is None:
        candidate = Candidate(model, str(QuantizerSpec.parse(quantizer)))
    return candidate, settings.probe(probe).name if probe else ""


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)
