"""Checks of values: the reference's at every kind of shape, sums of integers to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch

from clipq.testing.checks import NotRun, expect
from clipq.testing.kernels.covering import covering
from clipq.testing.kernels.real_shapes import (
    LEVELS,
    Shape,
    column_ladder,
    depth_ladder,
    layers,
    row_ladder,
    waves,
)
from clipq.testing.kernels.trial import REFUSALS, Trial, described

__all__ = [
    "Case",
    "accumulates_exactly",
    "cases",
    "holds",
    "matches_reference",
    "rounds_bfloat16",
    "survives_large_k",
]

Case = tuple[Shape, dict[str, Any], torch.dtype]
_SMALL = ((4, 64), (5, 37), (1, 1), (16, 80), (6, 130), (2, 256))  # rows, depth
_LARGE = 2**23  # products of a call that is not made twice


def holds(trial: Trial, name: str) -> None:
    """Check the calls that the operation has for a check of this name."""
    operation = trial.operation
    if not hasattr(operation, name.replace("-", "_")):
        raise NotRun(f"{trial.spec.operation} has no such case")
    cases = list(operation.hard(name))
    if not cases:
        raise NotRun("its cases are of a dtype that the kernel does not claim")
    for given in cases:
        trial.agree(given, trial.call(trial.moved(given)))


def matches_reference(trial: Trial) -> None:
    _matches(trial, trial.dtypes())


def rounds_bfloat16(trial: Trial) -> None:
    if "bfloat16" not in trial.spec.dtypes:
        raise NotRun("the kernel does not claim bfloat16")
    if trial.interpreted:
        raise NotRun("Triton's interpreter truncates to bfloat16 where a GPU rounds")
    _matches(trial, [torch.bfloat16])


def _matches(trial: Trial, dtypes: Sequence[torch.dtype]) -> None:
    twice = trial.operation.adds_floats and _is_cheap(trial)
    for seed, (shape, choice, dtype) in enumerate(cases(trial, dtypes)):
        trial.agrees_at(shape, choice, dtype, seed)
        if twice and shape.rows * shape.depth * shape.columns < _LARGE:
            trial.agrees_at(shape, choice, dtype, seed + 1)


def cases(trial: Trial, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Yield what a kernel is compared at: a shape, a level of each option, a dtype; small first."""
    yield from _small(trial, dtypes)
    yield from _along_ladders(trial, dtypes)
    yield from _designed(trial, dtypes)
    yield from _large(trial, dtypes)


def _small(trial: Trial, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Yield every combination of options at every alignment of the depth."""
    for turn, (choice, dtype) in enumerate(product(trial.operation.choices(), dtypes)):
        aligned, *others = _SMALL
        chosen = others if _is_cheap(trial) else others[turn % len(others) :][:1]
        for rows, depth in (aligned, *chosen):
            yield Shape(rows, depth, 33, dims=2 + turn % 3, programs=80), choice, dtype


def _along_ladders(trial: Trial, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Yield each length along each dimension, with options that change from one to the next."""
    operation, interpreted = trial.operation, trial.interpreted
    shapes = [*depth_ladder(operation.depths(), beyond=not trial.spec.sizes, few=interpreted)]
    shapes += row_ladder(few=interpreted)
    if operation.multiplies:
        shapes += column_ladder(few=interpreted)
    if not _is_cheap(trial):  # each length once: of one dtype or another
        places = [(i + i // 4) % len(dtypes) for i in range(len(shapes))]
        pairs = [(shape, dtypes[place]) for shape, place in zip(shapes, places, strict=True)]
    else:
        pairs = [(shape, dtype) for dtype in dtypes for shape in shapes]
    choices = operation.choices()
    if trial.device.type == "cuda":
        choices = choices[:: max(1, len(choices) // 4)]
    # A step that shares no factor with the number of choices meets all of them in turn.
    step = next(prime for prime in (7, 11, 13, 1) if len(choices) % prime)
    for turn, (shape, dtype) in enumerate(pairs):
        yield shape, choices[turn * step % len(choices)], dtype


def _designed(trial: Trial, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    levels = LEVELS["interpreter" if trial.interpreted else trial.device.type]
    factors: dict[str, Sequence[Any]] = {"rows": levels.rows, "depth": levels.depths}
    factors["dims"] = (2, 3, 4)
    if trial.operation.multiplies:
        factors["columns"] = levels.columns
    options = trial.operation.options()
    for case in covering(factors | {"dtype": dtypes} | options):
        shape = Shape(case["rows"], case["depth"], case.get("columns", 8), dims=case["dims"])
        yield shape, {name: case[name] for name in options}, case["dtype"]


def _is_cheap(trial: Trial) -> bool:
    """Whether a call costs what it computes: none compiles, none is interpreted."""
    return trial.device.type == "cpu" and not trial.interpreted


def _large(trial: Trial, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    choices, columns = trial.operation.choices(), trial.operation.multiplies
    whole = () if trial.interpreted else layers(columns=columns)
    shapes = (*waves(columns=columns), *whole)
    for turn, (dtype, shape) in enumerate(product(dtypes, shapes)):
        yield shape, choices[turn % len(choices)], dtype


def accumulates_exactly(trial: Trial) -> None:
    if not hasattr(trial.operation, "accumulates_exactly"):
        raise NotRun("adds no integers")
    for given in trial.operation.hard("accumulates-exactly"):
        sums = trial.call(trial.moved(given)).cpu().double()
        exact = trial.operation.expected(given).values.float().double()
        difference = float((sums - exact).abs().max())
        expect(
            torch.equal(sums, exact),
            f"{described(given)}: sums of integers are off by up to {difference:g}",
        )


def survives_large_k(trial: Trial) -> None:
    if not hasattr(trial.operation, "survives_large_k"):
        raise NotRun("adds no integers")
    for given in trial.operation.hard("survives-large-k"):
        try:
            sums = trial.call(trial.moved(given))
        except REFUSALS:
            continue
        exact = trial.operation.expected(given).values.float()
        expect(
            torch.equal(sums.cpu().float(), exact),
            f"{described(given)}: {sums.flatten()[0].item():g} for "
            f"{exact.flatten()[0].item():g}, and no error: sums overflow",
        )
