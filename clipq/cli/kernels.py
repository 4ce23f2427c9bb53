"""`clipq kernels`: what kernels claim, whether they keep it, what they ask of a GPU."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from clipq.errors import KernelError
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.kernels.bench import Bench
    from clipq.kernels.compiled import Resources

__all__ = ["bench_table", "declare", "run"]

_TOOLS = ("memcheck", "racecheck", "initcheck")
_FOUND = 86  # exit code of compute-sanitizer where a tool found something


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq kernels` to the command line."""
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
    kernels.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run one action; return the exit code: 1 where a kernel fails or nothing could be checked.

    Raises:
        ClipqError: an unknown kernel, or what the action needs is not here.
    """
    actions = {
        "list": _list,
        "check": _check,
        "sanitize": _sanitize,
        "compile": _compile,
        "build": _build,
        "bench": _bench,
    }
    return actions[options.action](options)


def _list(options: argparse.Namespace) -> int:
    from clipq.testing.kernels import load_kernel

    rows = []
    for name in _chosen(("*",)):
        kernel = load_kernel(name)
        spec = kernel.spec
        claims = [", ".join(spec.dtypes), ", ".join(spec.granularities)]
        claims += [text for text, held in (("gradient", spec.gradient), ("out=", spec.out)) if held]
        rows.append((name, spec.operation, kernel.source, "; ".join(claims), spec.operator))
    say(tabulate(rows, ("kernel", "operation", "written in", "claims", "torch operator")))
    return 0


def _check(options: argparse.Namespace) -> int:
    from clipq.kernels.kernel_spec import CHECKS
    from clipq.report.text import kernel_summary
    from clipq.testing.kernels import judge

    chosen = _chosen(options.kernels)
    results = []
    for number, name in enumerate(chosen, 1):
        for check in CHECKS:
            results.append(judge(name, check))
            if results[-1].outcome == "fail":
                say(f"FAIL {results[-1].id}", error=True)
        say(f"{number} of {len(chosen)}: {name}", error=True)
    say(kernel_summary(results))
    outcomes = {result.outcome for result in results}
    if "pass" not in outcomes:
        say("nothing could be checked here", error=True)
    return 0 if "pass" in outcomes and "fail" not in outcomes else 1


def _sanitize(options: argparse.Namespace) -> int:
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise KernelError(
            "compute-sanitizer is not on the PATH",
            hint="install the CUDA toolkit's sanitizer, or add its folder to the PATH",
        )
    import torch

    if not torch.cuda.is_available():
        raise KernelError("there is no GPU", hint="compute-sanitizer watches kernels on a GPU")
    failures = []
    for tool in options.tool or _TOOLS:
        say(f"compute-sanitizer --tool {tool}", error=True)
        command = [program, "--tool", tool, "--error-exitcode", str(_FOUND)]
        command += ["--target-processes", "all", sys.executable, "-m", "clipq", "kernels", "check"]
        code = subprocess.run([*command, *options.kernels]).returncode
        if code:
            what = "found errors" if code == _FOUND else f"ended with exit code {code}"
            failures.append(f"{tool} {what}")
    say("; ".join(failures) or "no tool found an error")
    return 1 if failures else 0


def _compile(options: argparse.Namespace) -> int:
    """Compile kernels for each architecture and print registers, spills and shared memory."""
    from clipq.kernels.compiled import ARCHITECTURES, compile_kernels

    compiled = []
    for resources in compile_kernels(options.arch or ARCHITECTURES, options.kernels):
        say(
            f"{resources.kernel} ({resources.example}), sm_{resources.architecture}",
            error=True,
        )
        compiled.append(resources)
    _print_resources(compiled)
    return 0


def _build(options: argparse.Namespace) -> int:
    from clipq.kernels.compiled import ARCHITECTURES
    from clipq.kernels.native.build import load_native, native_resources

    architectures = options.arch or ARCHITECTURES
    resources = []
    for architecture in architectures:
        resources += native_resources(architecture)
        say(f"rounding.cu, sm_{architecture}", error=True)
    say("compiling for torch and linking", error=True)
    library = load_native(architectures)
    _print_resources(resources)
    say(f"linked and loaded: {library}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    import torch

    from clipq.files import write_atomically
    from clipq.provenance import package_versions

    if not torch.cuda.is_available():
        raise KernelError(
            "there is no GPU", hint="speed is measured on a GPU of compute capability 8.0 or newer"
        )
    from clipq.kernels.bench import bench

    device = torch.device("cuda", torch.cuda.current_device())
    measured = []
    for figure in bench(device):
        say(f"{figure.kernel}: {figure.case}", error=True)
        measured.append(figure)
    versions = package_versions(("torch", "triton"))
    where = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device),
        **versions,
    }
    say(bench_table(measured))
    say(", ".join(f"{name} {value}" for name, value in where.items()))
    if options.json:
        plain = {**where, "figures": [asdict(figure) for figure in measured]}
        write_atomically(options.json, json.dumps(plain, indent=1).encode())
    return 0


def bench_table(measured: Sequence[Bench]) -> str:
    """Return figures as a table: rates, the share of the ceiling, how often as fast as torch."""
    rows = []
    for figure in measured:
        times = figure.rival_seconds / figure.seconds
        rows.append(
            (
                figure.kernel,
                figure.case,
                f"{figure.seconds * 1e3:.3f}",
                f"{figure.host_seconds * 1e6:.0f}",
                f"{figure.moved / figure.seconds / 1e9:,.0f}",
                f"{figure.operations / figure.seconds / 1e12:,.1f}" if figure.operations else "",
                f"{figure.share:.2f} of {figure.ceiling}",
                f"{times:.2f} x {figure.rival}" if figure.rival else "",
            )
        )
    headers = ("kernel", "case", "ms", "host us", "GB/s", "TOP/s", "of its ceiling", "as fast as")
    return tabulate(rows, headers, disable_numparse=True)


def _print_resources(compiled: Sequence[Resources]) -> None:
    rows = [
        (
            resources.kernel,
            resources.example,
            f"sm_{resources.architecture}",
            resources.registers,
            resources.spill_bytes,
            resources.shared_bytes,
            32 * resources.warps,
        )
        for resources in compiled
    ]
    headers = ("kernel", "example", "GPU", "registers", "spilled B", "shared B", "threads")
    say(tabulate(rows, headers))


def _chosen(globs: Sequence[str]) -> list[str]:
    from clipq.kernels.kernel_spec import matching

    return matching(globs or ("*",))
