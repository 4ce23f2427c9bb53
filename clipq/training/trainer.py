"""Training a student against its teacher: steps, looks, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from clipq.errors import TrainingError
from clipq.training.both_towers import Towers
from clipq.training.caption_pairs import Pairs
from clipq.training.checkpoints import Checkpoint, Checkpoints
from clipq.training.data_order import PairOrder, split_held_out
from clipq.training.deterministic import deterministic
from clipq.training.known_features import KnownFeatures
from clipq.training.learning import Learning
from clipq.training.objective import Objective
from clipq.training.passes import Passes
from clipq.training.training_checks import check_captions, check_learnt, identity_of
from clipq.training.training_loop import Loop
from clipq.training.training_outcome import Outcome, TrainingProgress
from clipq.training.worlds import World, joined
from clipq.training_settings import TrainingSettings

__all__ = ["train"]


def _quiet(progress: TrainingProgress) -> None:
    """Say nothing."""


def _nothing() -> None:
    """Write nothing."""


def train(
    student: nn.Module,
    teacher: nn.Module,
    *,
    pairs: Pairs,
    settings: TrainingSettings,
    objective: Objective,
    weights: Mapping[str, nn.Parameter],
    steps: Mapping[str, nn.Parameter],
    folder: Path,
    identity: Mapping[str, object],
    collapsed: Callable[[], Sequence[str]] = list,
    begin: Callable[[], None] = _nothing,
    progress: Callable[[TrainingProgress], None] = _quiet,
    save_seconds: float = 30.0,
    sharded: bool = False,
) -> Outcome:
    """Train a student, or go on with a training that a folder holds.

    Both models are used in eval mode: no dropout, and batch normalisation with the statistics that
    it has. The result is a function of models, pairs and recipe, on one machine with one number of
    threads; the number of parts of a batch and of processes changes it by rounding alone. A
    training that was cut off and resumed ends with the same bits.

    Args:
        student: has `encode_image`, `encode_text`, `logit_scale` and, perhaps, `logit_bias`, as
            models of open_clip do, and holds the parameters below. Always as it was initialised,
            also when a training is resumed. With `sharded`, it cannot be used afterwards.
        teacher: likewise; is not changed.
        pairs: of which a part is held out and chooses the checkpoint.
        settings: the recipe. Its ``objective`` is a name; what counts here is `objective`.
        objective: what is minimised.
        weights: parameters by name that `lr` is of; left alone where the recipe learns steps only.
        steps: parameters by name, steps and offsets, that `step_lr` is of.
        folder: for checkpoints and nothing else.
        identity: strict-JSON values that say what is trained, from what, by which code. A folder
            with another identity is refused, key by key; recipe and pairs are added to it.
        collapsed: returns the names of steps that are no steps any more: zero, negative, not
            finite. Called after each step.
        begin: called by the first process once nothing is left to refuse, before the first file
            is written: the caller's own file, which says what is trained here.
        progress: called after each step, by the first process.
        save_seconds: between checkpoints, each of which is taken after a step; the last always is,
            and so is the one that Ctrl-C ends.
        sharded: with several processes, divide parameters, gradients and moments among them (FSDP2)
            instead of copying them (DDP).

    Raises:
        TrainingError: the data do not suffice, the models do not match, another process trains in
            the folder or it holds another training, the loss is not finite or explodes, steps
            collapse, the disk is full. Checkpoints that were written before stay usable.
        CacheError: the folder is read-only.
        KeyboardInterrupt: Ctrl-C; the step that it came in is saved.

    >>> import copy, tempfile, torch
    >>> import numpy as np
    >>> from clipq.testing import small_clip
    >>> from clipq.training.objective import Loss
    >>> class Distance(Objective):
    ...     contrasts = False
    ...
    ...     def loss(self, student, teacher, batch):
    ...         return Loss((student.image - teacher.image).square().mean())
    >>> teacher = small_clip("vit")
    >>> student = copy.deepcopy(teacher)
    >>> with torch.no_grad():
    ...     moved = student.visual.proj.mul_(1.1)
    >>> images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> pairs = Pairs([f"image-{i}" for i in range(12)], lambda rows: images[rows],
    ...     torch.arange(144).reshape(12, 12) % 50, np.arange(12))
    >>> recipe = TrainingSettings(steps=20, batch=4, lr=0.01, every=10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outcome = train(student, teacher, pairs=pairs, settings=recipe, objective=Distance(),
    ...         weights={"projection": student.visual.proj}, steps={}, folder=Path(folder),
    ...         identity={})
    >>> outcome.best_step, [look.step for look in outcome.looks]
    (20, [0, 10, 20])
    >>> outcome.looks[-1].total < outcome.looks[0].total / 10
    True
    """
    if not settings.steps:
        return Outcome(best_step=0, steps_done=0)
    learnt = dict(weights) if settings.learn == "all" else {}
    check_learnt(student, teacher, learnt, steps, settings)
    train_rows, held_rows = split_held_out(pairs.ids, settings.held_out)
    check_captions(pairs, train_rows, objective)
    order = PairOrder(train_rows, batch=settings.batch, seed=settings.seed)
    whole_identity = identity_of(identity, settings, objective, pairs, {**learnt, **steps})

    student.eval().requires_grad_(False)
    teacher.eval()
    for parameter in (*learnt.values(), *steps.values()):
        parameter.requires_grad_()
    device = next(iter((*learnt.values(), *steps.values()))).device
    checkpoints = Checkpoints(folder)
    with ExitStack() as stack:
        seed_all = stack.enter_context(deterministic(device))
        world = stack.enter_context(joined(device))
        world.once(lambda: stack.enter_context(checkpoints.locked()))
        resumed = checkpoints.newest(whole_identity)
        _agree(world, resumed, folder)
        towers, taught = Towers(student, precision=settings.precision), Towers(teacher)
        block = -(-settings.batch // settings.accumulate)
        seed_all(settings.seed % 2**63)
        known = KnownFeatures.of(towers, taught, pairs, block=block, world=world)
        named = _placed(student, {**learnt, **steps})
        apart = {*steps.values(), *(each for each in student.parameters() if not each.ndim)}
        wrapped = world.wrapped(towers, sharded=sharded, whole=apart)
        now = dict(student.named_parameters())
        learning = Learning(
            {name: now[named[name]] for name in learnt},
            {name: now[named[name]] for name in steps},
            settings,
        )
        loop = Loop(
            passes=Passes(
                wrapped, student, taught, known, pairs, objective, settings, world, device
            ),
            learning=learning,
            order=order,
            held_out=held_rows,
            settings=settings,
            world=world,
            checkpoints=checkpoints,
            identity=whole_identity,
            collapsed=collapsed,
            progress=progress,
            seed_all=seed_all,
            unwrapped=[now[named[name]] for name in named if now[named[name]] in apart]
            if sharded
            else [],
            save_seconds=save_seconds,
        )
        world.once(begin)
        return loop.run(resumed)


def _placed(student: nn.Module, learnt: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Return where in the student each parameter is, which outlasts that it is replaced."""
    places = {id(parameter): place for place, parameter in student.named_parameters()}
    return {name: places[id(parameter)] for name, parameter in learnt.items()}


def _agree(world: World, resumed: Checkpoint | None, folder: Path) -> None:
    """Refuse processes that do not read the same folder.

    Raises:
        TrainingError: this one found another checkpoint than the first.
    """
    mine = None if resumed is None else resumed.step
    if (theirs := world.once(lambda: mine)) != mine:
        raise TrainingError(
            f"process {world.rank} finds step {mine} in {folder}, the first process {theirs}",
            hint="all processes need one folder: put it on a disk that all machines share",
        )
