"""`clipq artifact check`: is an exported artifact what it should be, before a gate judges it?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.artifact_settings import FP32_TOWER, ArtifactSettings
from clipq.cases import Candidate
from clipq.cli.artifact_choice import chosen_artifacts, given_artifact
from clipq.cli.context import settings_of
from clipq.cli.progress import watching
from clipq.errors import SettingsError, UnknownNameError, did_you_mean
from clipq.gating.latency import Measured, check_device, keep_latencies
from clipq.settings import Settings
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.evaluation.artifact_checkup import Checkup

__all__ = ["SCHEMA", "declare", "run"]

SCHEMA = "clipq-artifact-check/1"
_DESCRIPTION = """\
Is an exported artifact what it should be? Nothing is judged against a baseline; that is `clipq
gate`'s. For each artifact of clipq.toml, or for files that nobody declared yet, in this order:

  lint     what its files say of themselves, printed before anything runs: quantized operators and
           products left in float, operator set, sizes, scales and weights that are not finite
  opening  by its runtime, in a process of its own: the precision that is executed against the one
           asked for, provider, versions, what of this processor changes integer results
  parity   64 images of the in-distribution probe and its class prompts (one a class, 256 at most)
           against FP32 in torch, each tower by itself
  batch    the same samples alone, shuffled and in ragged batches beside the declared batch
  time     calls of its session and of FP32 in torch in turn, at the declared batch and threads

Parity, of each tower and of both:
  broken   mean cosine below 0.95, more than 20 % of the images in another class, or not finite
  weak     mean cosine below 0.99, any below 0.98, or more than 5 % in another class
  sound    otherwise: 8-bit tools that work change 0 to 3 % at cosines above 0.99
"""
_EPILOG = """\
  clipq artifact check                                  every artifact of clipq.toml
  clipq artifact check ort-int8 'ov-*'                  some of them
  clipq artifact check --model vit-clean --runtime onnxruntime \\
      --image image.onnx --text text.onnx               files that are not declared yet
  clipq artifact check --latency latency.toml           keep the times for reports

exit codes: 0 nothing wrong (weak is not), 1 a wrong finding, a broken tower, or an artifact that
            cannot be opened: each has its message, and the others go on; 2 wrong usage
"""


def declare(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq artifact check` to the command line."""
    check = actions.add_parser(
        "check",
        help="lint, parity with FP32, batch dependence and time of artifacts, in seconds",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("names", nargs="*", metavar="NAME", help="globs; default: all artifacts")
    check.add_argument("--model", metavar="MODEL", help="of this model alone; of files: whose")
    files = check.add_argument_group("files that clipq.toml does not declare")
    files.add_argument("--runtime", metavar="RUNTIME", help="what runs them: onnxruntime ...")
    files.add_argument("--image", metavar="FILE", help="the image tower")
    files.add_argument("--text", metavar="FILE", help=f"the text tower, or {FP32_TOWER!r}")
    files.add_argument("--batch", type=int, default=0, metavar="N", help="samples per call")
    files.add_argument("--threads", type=int, default=0, metavar="N", help="of the session")
    files.add_argument("--precision", default="", metavar="P", help="f32, f16 or bf16")
    files.add_argument("--provider", default="", metavar="P", help="execution provider or device")
    files.add_argument(
        "--io",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the graphs take, as in clipq.toml: layout=NHWC (repeatable)",
    )
    check.add_argument("--no-time", action="store_true", help="measure no times")
    check.add_argument(
        "--latency",
        type=Path,
        metavar="FILE",
        help="write milliseconds per image, FP32's beside them, to this file, which `latency` in "
        "clipq.toml names; its other entries are kept",
    )
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.add_argument("--quiet", action="store_true", help="no progress")
    check.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Examine artifacts, print what was found; return the exit code.

    Raises:
        ClipqError: an unknown name, contradicting options, or a latency file of another machine.
    """
    from clipq.evaluation.plan import load_plugins

    settings = settings_of(options)
    if options.latency and options.no_time:
        raise SettingsError(
            "--latency keeps times and --no-time measures none", hint="leave one of them out"
        )
    load_plugins(settings)
    settings, artifacts = _chosen(options, settings)
    if options.latency:
        check_device(options.latency)
    found = _examined(options, settings, artifacts)
    if options.json:
        from clipq.cli.artifact_lines import document

        wrong = sum(each.wrong for each in found)
        plain = [document(each, settings) for each in found]
        emit(json.dumps({"schema": SCHEMA, "wrong": wrong, "artifacts": plain}, allow_nan=False))
    if options.latency and (measured := _measured(found, settings)):
        keep_latencies(options.latency, measured)
        say(f"written: {options.latency}", error=True)
    return 1 if any(each.wrong for each in found) else 0


def _chosen(
    options: argparse.Namespace, settings: Settings
) -> tuple[Settings, tuple[ArtifactSettings, ...]]:
    from clipq.runtimes import runtimes

    given = given_artifact(options, settings)
    if given is None:
        return settings, chosen_artifacts(settings, options.names, model=options.model or "")
    if given.runtime not in runtimes:
        hint = did_you_mean(given.runtime, runtimes.names())
        raise UnknownNameError(f"unknown runtime {given.runtime!r}", hint=hint)
    return replace(settings, artifacts=(given,)), (given,)


def _examined(
    options: argparse.Namespace, settings: Settings, artifacts: Sequence[ArtifactSettings]
) -> list[Checkup]:
    from clipq.cli.artifact_lines import conclusion, heading, lines
    from clipq.evaluation.artifact_checkup import STEPS, Checkup, Examiner

    timed = not options.no_time
    total = len(artifacts) * (len(STEPS) - (not timed))
    found, done = [], 0
    examiner = Examiner(settings)
    with watching(options, unit="artifact") as watch, closing(examiner):
        for artifact in artifacts:
            candidate = Candidate(artifact.model, artifact.name)
            if not options.json:
                watch.clear()
                say(heading(candidate, settings, examiner.threads(candidate)))
            known, checkup = 0, Checkup(candidate)
            for step, checkup in examiner.examine(candidate, timed=timed):
                done += 1
                if not options.json:
                    watch.clear()
                    for line in lines(step, checkup, checkup.findings[known:]):
                        say(line)
                known = len(checkup.findings)
                watch.step(f"{candidate}: after {step}", done, total)
            if not options.json:
                watch.clear()
                say(f"{conclusion(checkup)}\n")
            found.append(checkup)
    return found


def _measured(found: Sequence[Checkup], settings: Settings) -> list[Measured]:
    """Return the times of image towers, in milliseconds per image."""
    measured = []
    for each in found:
        speed, artifact = each.speeds.get("image"), settings.artifact(each.candidate)
        if speed is not None and artifact is not None:
            how = f"{artifact.runtime}, batch {speed.batch}, threads {speed.threads}"
            measured.append(
                Measured(each.candidate, speed.milliseconds, speed.fp32_milliseconds, how)
            )
    return measured
