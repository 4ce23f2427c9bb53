"""Damaged input of every kind that clipq reads, and what comes of it.

    python benchmarks/fuzzing.py [--quick]

Real files of this repository are damaged (bytes that flip, lack or repeat, values of another kind,
folders, pipes and devices in their place) and read by the functions that a run reads them with.
The goal: of 10,000 inputs or more, none ends in anything but a result or a `ClipqError`, none
takes more than 20 s of the processor, two minutes of waiting or 2 GiB, none lets a run pass in
which nothing was measured. A seed and a number name an input: `--only NAME --first N --inputs 1`
makes it again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmark import Goals, Script
from read_formats import FORMATS

_SECONDS = 20.0  # of the processor: how long anything takes on a busy machine says nothing
_WAITING_SECONDS = 120.0
_MEMORY = 2 << 30
_ADDRESS_SPACE = 24 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz every format in processes of their own; return the exit code."""
    script = Script(__doc__, takes="half an hour")
    script.add_argument("--seed", type=int, default=0)
    script.add_argument("--only", nargs="+", choices=tuple(FORMATS), help="these formats alone")
    script.add_argument(
        "--first", type=int, default=0, metavar="N", help="number of the first input"
    )
    script.add_argument("--inputs", type=int, metavar="N", help="of each format")
    script.add_argument("--report", type=Path, help="JSON lines: one per input that failed")
    script.add_argument(
        "--work", type=Path, help="read inputs here; what the script calls itself with"
    )
    options = script.options(arguments)
    names = options.only or list(FORMATS)
    todo = [
        (name, number)
        for name in names
        for number in range(options.first, options.first + _count(options, name))
    ]
    if options.work is not None:
        _work(todo[int((options.work / "done").read_text() or 0) :], options.seed, options.work)
        return 0
    goals, outcomes = Goals(quick=options.quick), _outcomes(todo, options)
    counted: dict[str, Counter[str]] = {name: Counter() for name in names}
    slowest = dict.fromkeys(names, 0.0)
    for one in outcomes:
        counted[one["format"]][one["outcome"]] += 1
        slowest[one["format"]] = max(slowest[one["format"]], one["seconds"])
        if one["outcome"] == "failed":
            print(f"FAILED {one['format']} {one['number']}: {one['why']}", flush=True)
            if options.report is not None:
                with options.report.open("a") as stream:
                    stream.write(json.dumps(one) + "\n")
    for name, count in counted.items():
        shown = ", ".join(f"{count[kind]:,} {kind}" for kind in ("refused", "read", "failed"))
        print(f"{name:20} {sum(count.values()):6,} inputs: {shown}; slowest {slowest[name]:.2f} s")
    whole = sum(counted.values(), Counter())
    failed = whole["failed"]
    print(
        f"{sum(whole.values()):,} inputs, {whole['refused']:,} refused, {failed:,} failed (goal 0)"
    )
    goals.exact(failed == 0 and sum(whole.values()) == len(todo))
    return goals.code


def _count(options: Any, name: str) -> int:
    if options.inputs is not None:
        return int(options.inputs)
    _, full, quick = FORMATS[name]
    return quick if options.quick else full


def _outcomes(todo: Sequence[tuple[str, int]], options: Any) -> Iterator[dict[str, Any]]:
    """Yield what became of each input; one that ends its process costs that process alone."""
    with tempfile.TemporaryDirectory(prefix="clipq-fuzzing-") as folder:
        work = Path(folder)
        (work / "done").write_text("0")
        (work / "outcomes").touch()
        seen = 0
        words = ["--quick"] if options.quick else []
        words += ["--seed", str(options.seed), "--first", str(options.first)]
        words += [] if options.inputs is None else ["--inputs", str(options.inputs)]
        words += [] if options.only is None else ["--only", *options.only]
        while seen < len(todo):
            ended = subprocess.run(
                [sys.executable, __file__, *words, "--work", str(work)], cwd=folder,
                env=os.environ | {"HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1"},
                capture_output=True, text=True,
            )  # fmt: skip
            lines = (work / "outcomes").read_text().splitlines()
            yield from map(json.loads, lines[seen:])
            seen = len(lines)
            if seen < len(todo):
                name, number = todo[seen]
                why = f"the process ended with {ended.returncode}: {ended.stderr[-1500:]}"
                lost = {"format": name, "number": number, "outcome": "failed", "why": why}
                with (work / "outcomes").open("a") as stream:
                    stream.write(json.dumps(lost | {"seconds": 0.0}) + "\n")
                (work / "done").write_text(str(seen + 1))


def _work(todo: Sequence[tuple[str, int]], seed: int, work: Path) -> None:
    """Read inputs one after the other, and write down what became of each."""
    import faulthandler

    import datasets
    import open_clip
    import webdataset

    del datasets, open_clip, webdataset  # no input is to be blamed for the time these take to load
    os.environ["CLIPQ_STORE"] = ""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _too_slow)
    done = int((work / "done").read_text())
    for name, number in todo:
        # What waits outside of Python hears no signal.
        faulthandler.dump_traceback_later(_WAITING_SECONDS, exit=True)
        outcome = _outcome(name, number, seed, work / "input")
        done += 1
        with (work / "outcomes").open("a") as stream:
            stream.write(json.dumps({"format": name, "number": number, **outcome}) + "\n")
        (work / "done").write_text(str(done))
    faulthandler.cancel_dump_traceback_later()


def _outcome(name: str, number: int, seed: int, folder: Path) -> dict[str, Any]:
    from clipq.errors import ClipqError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    read = FORMATS[name][0](folder, Random(f"{seed} {name} {number}"))
    before, started = _peak(), time.process_time()
    outcome, why = "read", ""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        read()
    except ClipqError as error:
        outcome = "refused"
        if not str(error).strip():
            outcome, why = "failed", "a message that says nothing"
    except BaseException:  # a finding, whatever it is
        outcome, why = "failed", traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if _peak() - before > _MEMORY:
        outcome, why = "failed", f"{(_peak() - before) / 2**30:.1f} GiB"
    return {"outcome": outcome, "why": why, "seconds": round(time.process_time() - started, 3)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {_SECONDS:g} s")


if __name__ == "__main__":
    raise SystemExit(main())
