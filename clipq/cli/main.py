"""`clipq`: the command line. Parses, calls, prints; every user's mistake is one message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clipq import __version__
from clipq.cli.inspect import WHAT
from clipq.errors import ClipqError, SettingsError
from clipq.settings import PROFILES, Settings, find_settings, load_settings

__all__ = ["main"]

_DESCRIPTION = """\
Is a quantized CLIP still as reliable as the FP32 model?

clipq judges every model x quantizer x probe x metric of clipq.toml against a stored FP32
baseline: accuracy, calibration, out-of-distribution detection, feature sanity.
"""
_EPILOG = """\
a first session:
  clipq list cases                      what the matrix holds
  clipq probe check                     are the probes what they should be? with pictures
  clipq baseline create                 measure FP32 and store it for review
  clipq power                           what the margins ask of the probes' sizes
  clipq gate                            run every case, print the report, exit 1 if one blocks
  clipq gate --clipq-quantizer 'rtn:w4*' -n0     a part of it, in one process
  clipq blame 'vit-clean/rtn:w4a4/id.ece'        which layers make a case fail
  clipq inspect groups vit-clean/rtn:w4/corruptions     by kind of corruption, beside FP32

exit codes: 0 passed, 1 a case blocks or was never reported, 2 wrong usage or input,
            4 wrong pytest usage, 130 interrupted (what was measured is kept)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    if rest and options.command != "gate":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(options.run(options, rest))
    except ClipqError as error:
        print(f"clipq: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clipq: interrupted; what was cached is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="clipq", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=form
    )
    parser.add_argument("--version", action="version", version=f"clipq {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: nearest clipq.toml")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    gate = commands.add_parser(
        "gate",
        help="run the matrix and judge it",
        description="Run the matrix under pytest (-n auto unless -n is given). Every further "
        "argument goes to pytest: -k, --lf, --clipq-model GLOB, --clipq-policy release ...",
    )
    gate.set_defaults(run=_gate)

    baseline = commands.add_parser(
        "baseline",
        help="create, update, show or verify FP32 baselines",
        description="Baselines are reviewed like code: only this command writes them.",
    )
    actions = baseline.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("create", "measure FP32 and store it, where there is no baseline yet"),
        ("update", "measure FP32 again, show what changes, store it with a reason"),
        ("show", "print stored values, cumulative drift and history"),
        ("verify", "measure FP32 again and compare; write nothing"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("models", nargs="*", metavar="MODEL", help="default: all of them")
        if name == "update":
            action.add_argument("--reason", required=True, help="why the baseline changes")
            action.add_argument(
                "--accept-drift",
                action="store_true",
                help="approve even where FP32 became worse than first approved by over a margin",
            )
    baseline.set_defaults(run=_baseline)

    power = commands.add_parser(
        "power",
        help="which margins these probes can decide, and how many samples would",
        description="For each probe, metric and margin: the standard error of the paired loss, the "
        "smallest loss that is decided (minimum detectable effect) and the number of samples that "
        "decides the margin. Planned from the stored baselines and an assumed share of samples "
        "that a quantizer changes; with --record, from what a run measured.",
    )
    power.add_argument(
        "--disagreement",
        type=float,
        metavar="SHARE",
        help="assumed share of samples whose correctness changes; default: [statistics]",
    )
    power.add_argument(
        "--record", type=Path, metavar="REPORT.json", help="use a run's measured standard errors"
    )
    power.add_argument("--model", metavar="GLOB", default="*", help="only these models")
    power.add_argument("--all", action="store_true", help="also the margins that can be decided")
    power.set_defaults(run=_power)

    blame = commands.add_parser(
        "blame",
        help="which layers make a case fail, and the fewest to keep in float",
        description="Takes a case apart: each layer alone quantized, each alone in float, its "
        "signal-to-quantization-noise ratio; then searches the fewest layers to keep in float so "
        "that the case passes, and runs the gate on the quantizer that does so. What was "
        "evaluated is cached: an interrupted search goes on where it was.",
    )
    blame.add_argument("case", metavar="CASE", help="for example 'vit-clean/rtn:w4a4/id.ece'")
    blame.add_argument(
        "--by",
        choices=("layer", "block"),
        default="layer",
        help="what is switched at once; blocks take a fraction of the time",
    )
    blame.add_argument("--top", type=int, default=15, metavar="N", help="rows shown (default 15)")
    blame.add_argument("--all", action="store_true", help="show every row")
    blame.set_defaults(run=_blame)

    inspect = commands.add_parser(
        "inspect",
        help="a closer look at one model x quantizer beside FP32",
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
    inspect.set_defaults(run=_inspect)

    probe = commands.add_parser(
        "probe",
        help="list probes, check that they are what they should be, or fetch their shards",
        description="Check: every shard and image is read, counts, class map and checksums are "
        "verified, images are compared with those of the calibration split (and, out of "
        "distribution, with the in-distribution probe's), and a contact sheet is written.",
    )
    kinds = probe.add_subparsers(dest="action", required=True, metavar="ACTION")
    kinds.add_parser("list", help="names, roles and what each is for")
    check = kinds.add_parser("check", help="read and verify everything, write contact sheets")
    check.add_argument("probes", nargs="*", metavar="PROBE", help="default: all of them")
    check.add_argument(
        "--sheets", type=Path, metavar="DIR", help="where PNGs go; default: beside the cache"
    )
    fetch = kinds.add_parser("fetch", help="download shards of probes whose source is a URL")
    fetch.add_argument("probes", nargs="*", metavar="PROBE", help="default: all with a URL")
    probe.set_defaults(run=_probe)

    kernels = commands.add_parser(
        "kernels",
        help="list, check, sanitize or compile kernels",
        description="Kernels claim to implement quantized operations; checks compare them with "
        "the reference. Every registered kernel takes part, clipq's own and those of installed "
        "packages (entry points clipq.kernels).",
    )
    acts = kernels.add_subparsers(dest="action", required=True, metavar="ACTION")
    acts.add_parser("list", help="registered kernels and what they claim")
    for name, text in (
        ("check", "run the conformance checks: on a GPU, else by Triton's interpreter"),
        ("sanitize", "run them under compute-sanitizer: memcheck, racecheck, initcheck; on a GPU"),
    ):
        act = acts.add_parser(name, help=text, description=text)
        act.add_argument("kernels", nargs="*", metavar="GLOB", help="default: all of them")
        if name == "sanitize":
            act.add_argument(
                "--tool",
                action="append",
                choices=("memcheck", "racecheck", "initcheck"),
                help="only this tool (repeatable)",
            )
    compiling = acts.add_parser(
        "compile",
        help="registers, spills and shared memory of clipq's own, without a GPU",
        description="Compile each kernel ahead of time at shapes of CLIP ViT-L/14 and print what "
        "it asks of a GPU: registers and spilled bytes a thread, shared memory a program.",
    )
    compiling.add_argument("kernels", nargs="*", metavar="KERNEL", help="default: all of them")
    benching = acts.add_parser(
        "bench",
        help="how fast the Triton kernels are, beside ceilings of the same run; on a GPU",
        description="Time each kernel at sizes of CLIP ViT-L/14 and a batch of 256, beside what "
        "bounds it (a copy on the device, torch._int_mm) and torch's own operation.",
    )
    benching.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    building = acts.add_parser(
        "build",
        help="compile and link the CUDA C++ kernels, with registers and spills",
        description="Compile and link the CUDA C++ kernels with nvcc, through torch's extension "
        "loader, and print what each asks of a GPU. Needs a CUDA toolkit, but no GPU.",
    )
    for act in (compiling, building):
        act.add_argument(
            "--arch",
            type=int,
            action="append",
            choices=(80, 90, 100),
            help="compute capability without its dot (repeatable); default: all",
        )
    kernels.set_defaults(run=_kernels)

    listing = commands.add_parser("list", help="what is known: models, quantizers, probes ...")
    listing.add_argument("kind", choices=("models", "quantizers", "probes", "metrics", "cases"))
    listing.add_argument(
        "--profile", choices=PROFILES, default="default", help="of cases: which part of the matrix"
    )
    listing.set_defaults(run=_list)

    report = commands.add_parser("report", help="print a stored run record again")
    report.add_argument("record", type=Path, metavar="REPORT.json")
    report.add_argument("--format", choices=("text", "markdown", "junit"), default="text")
    report.set_defaults(run=_report)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    path = options.config or find_settings(Path.cwd())
    if path is None:
        raise SettingsError(
            f"no clipq.toml at or above {Path.cwd()}",
            hint="create one (docs/settings.md shows a complete one), or pass --config FILE",
        )
    return load_settings(path)


def _gate(options: argparse.Namespace, rest: Sequence[str]) -> int:
    import pytest

    settings = _settings(options)
    suite = Path(__file__).parent.parent / "suite"
    modules = ("test_reliability.py", "test_kernels.py")
    parallel = any(argument.startswith(("-n", "--numprocesses")) for argument in rest)
    return pytest.main(
        [
            *(str(suite / module) for module in modules),
            f"--rootdir={settings.root}",
            f"--clipq-config={settings.path}",
            "-Wignore::pytest.PytestAssertRewriteWarning",  # clipq is imported: this is it
            *([] if parallel else ["-n", "auto"]),
            *rest,
        ]
    )


def _baseline(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.baseline import run

    return run(_settings(options), options)


def _power(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.power import run

    return run(_settings(options), options)


def _blame(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.blame import run

    return run(_settings(options), options)


def _inspect(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.inspect import run

    return run(_settings(options), options)


def _probe(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.probe import run

    return run(_settings(options), options)


def _kernels(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.kernels import run

    return run(options)


def _list(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.cli.listing import listing

    print(listing(_settings(options), options.kind, profile=options.profile))
    return 0


def _report(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from clipq.records import read_run
    from clipq.report.junit import junit
    from clipq.report.markdown import markdown
    from clipq.report.text import summary

    record = read_run(options.record)
    renderers = {"text": summary, "markdown": markdown, "junit": junit}
    print(renderers[options.format](record))
    return 0 if record.passed else 1
