"""`clipq demo`: a first gate without models, data or settings of one's own."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import RecordError
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.records import RunRecord
    from clipq.settings import Settings

__all__ = ["declare", "run"]

_DESCRIPTION = """\
Write a small, complete project into a folder and gate it: two CLIPs of 3 MB, five probes, FP32's
stored values, two quantizers. Everything comes with clipq (30 MB are written, nothing is
downloaded), and everything is measured here: the images are encoded, the verdicts are reached as
in a project of your own. 8-bit rounding (rtn:w8a8) may ship; 4-bit rounding (rtn:w4a4) is blocked.

A second `clipq demo` in the same folder goes on where an interrupted one stopped, keeps what you
changed, and gates again: what is cached is not encoded again. A folder that holds anything else is
refused.
"""
_EPILOG = """\
examples:
  clipq demo                   into ./clipq-demo
  clipq demo /tmp/try          somewhere else
  clipq demo --no-gate         write the project; then: cd clipq-demo, clipq gate

exit codes: 0 the gate said what it should: rtn:w8a8 passes, rtn:w4a4 is blocked
            1 it said something else here (of a project that you changed: as clipq gate exits)
            2 the folder was refused, or wrong usage; 130 interrupted: the same command goes on
"""
_FOLDER = Path("clipq-demo")
_BLOCKED = {"rtn:w8a8": False, "rtn:w4a4": True}
_WORKERS = 4  # as many as there are model x quantizer; each takes a second to start


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq demo` to the command line."""
    demo = commands.add_parser(
        "demo",
        help="a first gate, of models and images that come with clipq",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "folder", nargs="?", type=Path, default=_FOLDER, help=f"new or empty; default: {_FOLDER}"
    )
    demo.add_argument("--no-gate", action="store_true", help="write the project, measure nothing")
    demo.add_argument(
        "-n",
        "--workers",
        type=int,
        metavar="N",
        help=f"processes that measure; 0: this one; default: one per core, at most {_WORKERS}",
    )
    demo.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Lay the project out, gate it, say what was seen and what to try next.

    Raises:
        SettingsError: the folder holds something else.
    """
    from clipq.cli.onboarding.demo_project import lay_out, untouched

    folder = options.folder
    say(f"a project to try clipq on, in {folder}")
    settings = lay_out(folder, lambda part: say(f"  written  {part}"))
    if options.no_gate:
        say(f"\nnext:\n  {_enter(folder)}\n  clipq gate")
        return 0
    say(f"\n$ {_enter(folder)} && clipq gate\n")
    code, record = _gated(settings, _workers(options.workers))
    if record is None:
        again = f"clipq demo {shlex.quote(str(folder))}"
        say(f"\nthe gate did not get to its end (exit code {code}); `{again}` goes on from here")
        return code or 1
    if untouched(settings):
        wrong = _unexpected(record)
        code = 1 if wrong else 0
        say("\n" + "\n".join(wrong or _EXPECTED))
    say("\n" + "\n".join(_next(settings, folder)))
    return code


def _workers(asked: int | None) -> int:
    if asked is not None:
        return max(asked, 0)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _WORKERS)


def _gated(settings: Settings, workers: int) -> tuple[int, RunRecord | None]:
    """Run the gate; return its exit code and its record, None where it wrote none."""
    from clipq.cli.main import main
    from clipq.records import read_run

    path = settings.report / "report.json"
    before = path.read_bytes() if path.is_file() else b""
    code = main(["--config", str(settings.path), "gate", "-n", str(workers)])
    try:
        content = path.read_bytes()
        return code, None if code > 1 or content == before else read_run(path, content)
    except (OSError, RecordError):
        return code, None


_EXPECTED = (
    "That was a gate. Its exit code is 1, for rtn:w4a4 is blocked, as it should be: rounded to 4",
    "bits both models lose accuracy, calibration and captions beyond the margins. rtn:w8a8 passes,",
    "what its samples cannot decide is reported and does not block under policy ci.",
)


def _unexpected(record: RunRecord) -> tuple[str, ...]:
    """Return in which way this machine's verdicts are not the expected ones; () where they are."""
    from clipq.cli.onboarding.demo_files import MODELS
    from clipq.report.candidates import candidate_lines
    from clipq.verdicts import Verdict

    counts = record.counts
    if Verdict.DRIFTED in counts:
        return (
            "FP32 itself computes otherwise on this machine than where its baseline was measured,",
            "so that no quantizer can be judged by it. Measure FP32 here, then gate again:",
            "  clipq baseline update --reason 'measured on this machine'",
        )
    absent = {(model, quantizer) for model in MODELS for quantizer in _BLOCKED}
    wrong = []
    for line in candidate_lines(record):
        absent.discard((line.candidate.model, line.candidate.quantizer))
        blocked = "fail" in line.blocking and set(line.blocking) <= {"fail", "suspect"}
        if not (blocked if _BLOCKED.get(line.candidate.quantizer) else not line.blocked):
            wrong.append(f"  {line}")
    wrong += [f"  {'/'.join(one)}: was not judged" for one in sorted(absent)]
    wrong += [f"  {text}" for text in (*record.problems, *record.unreported)]
    told = "The gate judged otherwise here than it should: rtn:w8a8 passes, rtn:w4a4 is blocked."
    return (told, *wrong, "`clipq doctor` looks at the installation.") if wrong else ()


def _next(settings: Settings, folder: Path) -> list[str]:
    return [
        f"read the report:  {settings.report / 'report.html'}",
        "",
        "then try:",
        f"  {_enter(folder)}",
        "  clipq probe check                               the images, with a contact sheet",
        "  clipq inspect groups vit-clean/rtn:w4a4/id      colour by colour, beside FP32",
        "  clipq blame 'vit-clean/rtn:w4a4/id.top1' --by block     what costs it; minutes",
        '  edit clipq.toml: add "gptq:w4" to quantizers; clipq gate computes only that',
        "and in your own repository:",
        "  clipq init                                      writes clipq.toml from what it finds",
    ]


def _enter(folder: Path) -> str:
    return f"cd {shlex.quote(str(folder))}"
