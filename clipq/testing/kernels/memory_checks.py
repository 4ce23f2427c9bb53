"""Checks of memory: inputs that lie in it as they come, outputs written whole and alone."""

from __future__ import annotations

import torch
from torch import Tensor

from clipq.testing.checks import expect
from clipq.testing.kernels.memory import filled_memory, layouts, repeats, shifted
from clipq.testing.kernels.operation import Arguments
from clipq.testing.kernels.trial import Trial, described, same

__all__ = [
    "keeps_earlier_results",
    "takes_empty_inputs",
    "takes_strided_inputs",
    "takes_unaligned_pointers",
    "writes_every_element",
    "writes_nothing_else",
]

_GUARD = 4096  # elements before and after an output: what a missing mask would overwrite


def takes_strided_inputs(trial: Trial) -> None:
    for drawn in (
        *trial.varied(6, width=64),
        *trial.varied(2, 3, width=64),
        trial.ordinary(2, 3, 4, width=64),
        trial.ordinary(2, 3, 2, width=37),
        trial.ordinary(1, width=64),
    ):
        given = trial.moved(drawn)
        wanted = trial.call(given)
        for name, value in given.items():
            if not isinstance(value, Tensor) or not value.dim():
                continue
            if given["x"].dim() > 2 >= value.dim():
                continue  # a weight: the same as beside an x of rows
            for layout, view in layouts(value):
                _equal(trial, given | {name: view}, name, layout, wanted)
            for layout, view in repeats(value):
                copied = given | {name: view.clone(memory_format=torch.contiguous_format)}
                _equal(trial, given | {name: view}, name, layout, trial.call(copied))


def _equal(trial: Trial, given: Arguments, name: str, layout: str, wanted: Tensor) -> None:
    """Compare with a contiguous call; sums of floats in another order with the reference."""
    found = trial.call(given)
    if not same(found, wanted):
        here = f": {name} {layout}, strides {given[name].stride()}"
        trial.agree({n: _on_cpu(v) for n, v in given.items()}, found, here)


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value


def takes_unaligned_pointers(trial: Trial) -> None:
    for drawn in trial.varied(6, width=64):
        given = trial.moved(drawn)
        wanted = trial.call(given)
        for name, value in given.items():
            if not isinstance(value, Tensor):
                continue
            for shift in (1, 3):
                moved = shifted(value, shift)
                expect(
                    same(trial.call(given | {name: moved}), wanted),
                    f"{described(given)}: {name} that starts {shift} elements into its "
                    "memory gives another result",
                )
    if trial.spec.out:
        out = shifted(torch.zeros_like(wanted), 1)
        trial.call(given, out=out)
        expect(same(out, wanted), f"{described(given)}: an unaligned output differs")


def takes_empty_inputs(trial: Trial) -> None:
    for leading in ((2,), (2, 3)):
        for given in trial.varied(*leading, width=64):
            shape, dtype = trial.output_of(given)
            for dim in range(len(leading)):
                wanted = torch.Size([*shape[:dim], 0, *shape[dim + 1 :]])
                empty = dict(given)
                for name in ("x", "scale", "zero_point", "x_scale"):
                    part = given.get(name)
                    # A scale per token has as many dimensions as x, and loses the same rows.
                    if isinstance(part, Tensor) and part.shape[:-1] == given["x"].shape[:-1]:
                        empty[name] = part.narrow(dim, 0, 0)
                result = trial.call(trial.moved(empty))
                expect(
                    result.shape == wanted and result.dtype == dtype,
                    f"no rows give {tuple(result.shape)} of {result.dtype}, "
                    f"not {tuple(wanted)} of {dtype}",
                )


def writes_every_element(trial: Trial) -> None:
    for *leading, width in ((5, 70), (33, 200), (3, 4099), (2, 8, 64), (1, 1024)):
        given = trial.ordinary(*leading, width=width)
        moved = trial.moved(given)
        if trial.spec.out:
            for poison in (torch.nan, 77, 0):
                _, out = _guarded(trial, given, poison)
                result = trial.call(moved, out=out)
                expect(result.data_ptr() == out.data_ptr(), "the result is not in out")
                trial.agree(given, out, ", on an output that held garbage")
        with filled_memory():
            trial.agree(given, trial.call(moved), ", on memory that held garbage")


def writes_nothing_else(trial: Trial) -> None:
    for *leading, width in ((5, 70), (33, 200), (1, 4099), (2, 8, 64), (1, 1024)):
        given = trial.ordinary(*leading, width=width)
        moved = trial.moved(given)
        before = {n: v.clone() for n, v in moved.items() if isinstance(v, Tensor)}
        if trial.spec.out:
            store, out = _guarded(trial, given, 77)
            trial.call(moved, out=out)
            bands = torch.cat([store[:_GUARD], store[-_GUARD:]])
            expect(
                (bands == 77).all(),
                f"{described(given)}: {int((bands != 77).sum())} elements beside the output "
                "were written",
            )
        else:
            trial.call(moved)
        for name, value in before.items():
            expect(same(moved[name], value), f"{described(given)}: {name} was written to")


def keeps_earlier_results(trial: Trial) -> None:
    given, other = (trial.moved(trial.ordinary(seed=seed)) for seed in (0, 10))
    first = trial.call(given)
    copy = first.clone()
    wanted = trial.call(other)
    expect(same(first, copy), "a later call changed the result of an earlier one")
    for name, value in given.items():
        if isinstance(value, Tensor):
            value.copy_(other[name])
    expect(
        same(trial.call(given), wanted),
        "on new values in the same memory, a call gives the result of an earlier one",
    )


def _guarded(trial: Trial, given: Arguments, poison: float) -> tuple[Tensor, Tensor]:
    """Return memory, and an output that holds `poison` between two guard bands of it."""
    shape, dtype = trial.output_of(given)
    count = shape.numel()
    store = torch.full((count + 2 * _GUARD,), 77, dtype=dtype, device=trial.device)
    inner = store[_GUARD:-_GUARD]
    inner.fill_(poison if dtype.is_floating_point or poison == poison else 99)
    return store, inner.view(shape)
