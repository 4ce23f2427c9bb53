"""Trains a quantizer: where the arithmetic, the pairs, the trainer and the folder meet."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipq.errors import QuantizerError
from clipq.evaluation.trained_folder import TrainedFolder, write_trained
from clipq.evaluation.trained_manifest import TRAINED, LossAt, TrainedManifest
from clipq.evaluation.training_unit import UNIT, TrainingUnit
from clipq.provenance import package_versions
from clipq.quant import QuantizerSpec
from clipq.training_settings import TrainingSettings

if TYPE_CHECKING:
    import torch

    from clipq.evaluation.proxy_pairs import Pairs
    from clipq.models import LoadedModel, Preprocess
    from clipq.quant import Calibration
    from clipq.training.caption_pairs import Pairs as TokenPairs
    from clipq.training.objective import Objective
    from clipq.training.training_outcome import Outcome, TrainingProgress

__all__ = [
    "TrainingData",
    "first_pairs",
    "is_first_process",
    "objective_of",
    "recipe_of",
    "refuse_other",
    "train_unit",
]

_CHECKPOINTS = "checkpoints"
_LOCK = "lock"  # in it, of whoever trains


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a quantizer is trained with.

    Args:
        name: of the pairs, for people.
        pairs: images with captions.
        hashes: of the images (N,): equal images are held out or trained on together.
        calibration: what the quantizer is initialised with.
    """

    name: str
    pairs: Pairs
    hashes: Sequence[str]
    calibration: Calibration


def recipe_of(spec: QuantizerSpec) -> dict[str, str | int | float]:
    """Return every option of a quantizer's training, those that its text leaves out, too.

    Raises:
        QuantizerError: a value makes no sense.

    >>> recipe_of(QuantizerSpec.parse("lsq:w4a8,steps=9"))["steps"]
    9
    """
    return asdict(TrainingSettings.read(dict(spec.options)))


def objective_of(spec: QuantizerSpec) -> Objective:
    """Return what a quantizer is trained to minimise.

    Raises:
        UnknownNameError: there is no such objective.
    """
    from clipq.training.objectives import objectives

    return objectives.get(TrainingSettings.read(dict(spec.options)).objective)()


def train_unit(
    unit: TrainingUnit,
    loaded: LoadedModel,
    data: TrainingData,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Callable[[TrainingProgress], None],
    sharded: bool = False,
) -> TrainedFolder:
    """Train a quantizer into a folder, or go on with what was interrupted there.

    The result does not depend on how often it was: checkpoints lie beside until all is written.

    Args:
        unit: what.
        loaded: the FP32 model, which teaches and stays as it is.
        data: what with.
        folder: is made.
        device: where.
        progress: called after each step.
        sharded: of several processes, whether each holds a share of the parameters (FSDP2).

    Raises:
        QuantizerError: the folder holds something else, or the quantizer cannot be made.
        TrainingError: the pairs do not do, losses or steps explode, or the disk is full.
    """
    from clipq.quant.trainable import learner_of
    from clipq.training.trainer import train

    refuse_other(unit, folder)
    if (folder / TRAINED).is_file():
        return TrainedFolder.read(folder)
    spec, settings = QuantizerSpec.parse(unit.quantizer), unit.settings
    twin = learner_of(copy.deepcopy(loaded.model), spec, data.calibration)
    pairs = _tokenised(data, loaded, settings.pairs, device)
    before = twin.state() if sharded else {}
    with _current(device):
        outcome = train(
            twin.module,
            loaded.model,
            pairs=pairs,
            settings=settings,
            objective=objective_of(spec),
            weights=twin.weights(),
            steps=twin.steps(),
            folder=folder / _CHECKPOINTS,
            identity={
                "quantizer": unit.quantizer,
                "model": dict(unit.parent),
                "data": dict(unit.data),
                "code": dict(unit.code),
            },
            collapsed=twin.collapsed,
            begin=lambda: unit.write(folder),
            progress=progress,
            sharded=sharded,
        )
    # What was sharded cannot be asked any more: what is not learnt is as it was before.
    state = {**before, **outcome.parameters} if sharded else twin.state()
    first = is_first_process()
    made = write_trained(folder, _manifest(unit, data, pairs, outcome), state, write=first)
    if first:
        shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
        with suppress(OSError):
            (folder / UNIT).unlink()
    return made


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks, of those that torchrun started.

    >>> is_first_process()
    True
    """
    with suppress(ValueError):
        return int(os.environ.get("RANK", "0")) == 0
    return True


def refuse_other(unit: TrainingUnit, folder: Path) -> None:
    """Refuse to train into a folder that holds anything but the same training.

    Raises:
        QuantizerError: it does, and in what that is another one.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise QuantizerError(f"{folder} is a file", hint="name a folder with --output")
    finished = (folder / TRAINED).is_file()
    if not finished and not (folder / UNIT).is_file():
        if all(path.name.startswith(".") or _is_untouched(path) for path in folder.iterdir()):
            return  # another process, or nobody, is about to write, or what it asked was refused
        raise QuantizerError(
            f"{folder} holds what is no training",
            hint="name another folder with --output, or empty it first",
        )
    before = TrainedManifest.read(folder).unit if finished else TrainingUnit.read(folder)
    if wrong := list(unit.differences(before)):
        raise QuantizerError(
            f"{folder} holds another training: {'; '.join(wrong)}",
            hint="name another folder, or remove it to train anew"
            + (
                ""
                if finished
                else "; what was interrupted goes on with the same recipe, data and code only"
            ),
        )


def _is_untouched(path: Path) -> bool:
    """Whether it is the folder of checkpoints, and no training ever wrote one."""
    named = path.name == _CHECKPOINTS and path.is_dir()
    return named and all(inner.name == _LOCK for inner in path.iterdir())


def first_pairs(hashes: Sequence[str], most: int) -> list[int]:
    """Return the rows of the first pairs by the hashes of their images, ascending.

    Args:
        hashes: of the images (N,).
        most: how many are wanted.

    >>> first_pairs(["c", "a", "b"], 2)
    [1, 2]
    """
    return sorted(sorted(range(len(hashes)), key=lambda row: (hashes[row], row))[:most])


def _tokenised(data: TrainingData, loaded: LoadedModel, most: int, device: str) -> TokenPairs:
    """Return the first `most` pairs by the hashes of their images, as the trainer takes them."""
    from clipq.training.caption_pairs import Pairs as TokenPairs

    rows = np.array(first_pairs(data.hashes, most), np.int64)
    kept = np.isin(data.pairs.owners, rows)
    captions = [text for text, keep in zip(data.pairs.captions, kept, strict=True) if keep]
    return TokenPairs(
        [data.hashes[row] for row in rows],
        _images(data.pairs.images, rows, loaded.preprocess, device),
        loaded.tokenizer(captions),
        np.searchsorted(rows, data.pairs.owners[kept]),
    )


def _images(
    pixels: np.ndarray, rows: np.ndarray, preprocess: Preprocess, device: str
) -> Callable[[np.ndarray], torch.Tensor]:
    def of(chosen: np.ndarray) -> torch.Tensor:
        return preprocess.normalise(pixels[rows[chosen]]).to(device)

    return of


def _current(device: str) -> AbstractContextManager[object]:
    """Make a GPU the current one for a while: what processes send each other goes by way of it."""
    import torch

    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def _manifest(
    unit: TrainingUnit, data: TrainingData, pairs: TokenPairs, outcome: Outcome
) -> TrainedManifest:
    from clipq.training.data_order import split_held_out

    held_out = len(split_held_out(pairs.ids, unit.settings.held_out)[1])
    kept = f"step {outcome.best_step} has the least loss on the held-out pairs"
    end = f"no gain in {unit.recipe['patience']} looks" if outcome.stopped_early else "all steps"
    return TrainedManifest(
        unit,
        "0" * 64,  # of the state, which is not written yet
        proxy=data.name,
        pairs=len(pairs) - held_out,
        held_out=held_out,
        steps=outcome.steps_done,
        best_step=outcome.best_step,
        why=f"{kept}; it ended after {outcome.steps_done} steps: {end}",
        losses=tuple(
            LossAt(one.step, dict(one.held_out), dict(one.train)) for one in outcome.looks
        ),
        seconds=outcome.seconds,
        versions=dict(package_versions()),
    )
