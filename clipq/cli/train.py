"""`clipq train`: quantizers that learn, from image-caption pairs; go on with one, look at one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipq.errors import SettingsError
from clipq.terminal import say

__all__ = ["declare", "run"]

_USAGE = """\
clipq train MODEL QUANTIZER [QUANTIZER ...] --output FOLDER [options]
       clipq train resume FOLDER [options]
       clipq train show FOLDER [--json]"""
_DESCRIPTION = """\
Train a quantizer of a model of clipq.toml: its steps, and its weights too unless learn=steps, on
the pairs of the proxy probe (without one: the calibration split, where it has captions). What is
written is a folder: trained.safetensors, and trained.json with recipe, data, losses, versions and
hashes. A gate whose [matrix] names the quantizer loads it from there, on any machine; without it,
the gate trains at first use and keeps what it made in the cache.
"""
_EPILOG = """\
quantizers that are trained (docs/quantizers.md has their formats and options):
  lsq       learned step sizes (with z inputs, lsq:w4a8z: LSQ+)
  rot+lsq   likewise, after a rotation
  pact      learned clipping        dorefa    tanh-scaled weights

options of the text, of every one of them:
  objective=distil    what is minimised; `clipq list objectives` knows them
  steps=300 batch=128 lr=1e-4 step_lr=1e-3 warmup=0.1 decay=0 clip=1
  pairs=1000          image-caption pairs; held_out=0.1: the share that chooses the checkpoint
  every=50            steps between two looks at it; patience=0: looks without gain until it stops
  learn=all           steps: weights stay as they are, and the folder is a few kilobytes
  accumulate=1 precision=float32   parts of a batch; bf16: products in bfloat16
  seed=0

  clipq train vit-clean lsq:w4a8@vision --output trained/vit-clean
  clipq train vit-clean 'lsq:w4a8,seed=0' 'lsq:w4a8,seed=1' --output trained
                                                 a folder for each; finished ones are left alone
  clipq train 'vit-*' 'lsq:*' --output trained   each of these models, quantizers of [matrix]
  clipq train resume trained/vit-clean           go on with what was interrupted
  clipq train show trained/vit-clean             recipe, data, losses
  torchrun --nproc-per-node 4 -m clipq train vit-clean lsq:w4a8 --output trained/vit-clean

exit codes: 0 trained (or finished before), 2 wrong usage or input, or a training that failed,
            130 interrupted (the step that Ctrl-C came in is saved; a second one ends at once),
            143 terminated (SIGTERM: likewise)
"""


def declare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `clipq train` to the command line."""
    train = commands.add_parser(
        "train",
        help="train a quantizer on image-caption pairs; resume one, show one",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "model", metavar="MODEL", help="name or glob of models in clipq.toml; or: resume, show"
    )
    train.add_argument(
        "named",
        nargs="+",
        metavar="QUANTIZER",
        help="text, or glob of those in [matrix]; or FOLDER",
    )
    train.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="is made; of several trainings, the folder of their folders",
    )
    train.add_argument(
        "--proxy",
        metavar="KIND:LOCATION",
        help="pairs to train on, instead of the proxy probe of clipq.toml",
    )
    train.add_argument(
        "--split", default="train", metavar="NAME", help="of --proxy (default train)"
    )
    train.add_argument("--device", metavar="DEVICE", help="instead of `device` in clipq.toml")
    train.add_argument(
        "--threads", type=int, metavar="N", help="instead of `threads` in clipq.toml"
    )
    train.add_argument(
        "--sharded",
        action="store_true",
        help="with torchrun: a share of the parameters in each process (FSDP2), not copies (DDP)",
    )
    train.add_argument("--json", action="store_true", help="show: print one JSON document")
    train.add_argument("--quiet", action="store_true", help="no progress")
    train.set_defaults(run=run)


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Train, go on or show; return the exit code.

    Raises:
        ClipqError: the words make no command, or what they name cannot be used.
    """
    from clipq.cli.train_showing import show_trained
    from clipq.cli.training import resume_training, start_trainings
    from clipq.evaluation.training_run import is_first_process

    options.quiet = options.quiet or not is_first_process()
    if options.model not in ("resume", "show"):
        if options.output is None:
            raise SettingsError(
                "clipq train needs --output FOLDER",
                hint=f"for example --output trained/{options.model}",
            )
        return _ended(lambda: start_trainings(options))
    if len(options.named) != 1 or options.output is not None:
        raise SettingsError(
            f"clipq train {options.model} takes one folder, and no --output",
            hint=f"clipq train {options.model} FOLDER",
        )
    folder = Path(options.named[0])
    if options.model == "show":
        return show_trained(options, folder)
    return _ended(lambda: resume_training(options, folder))


def _ended(train: Callable[[], int]) -> int:
    """Return a training's exit code: 143 where SIGTERM ended it, as a shell has it."""
    from clipq.training.interruptions import terminations

    with terminations() as terminated:
        try:
            code = train()
        except KeyboardInterrupt:
            if not terminated():
                raise
            say("clipq: terminated; what was cached is kept", error=True)
            return 143
        return 143 if code == 130 and terminated() else code
