"""Checks of what a kernel refuses, and of what torch makes of it: gradients, graphs, export."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from clipq.testing.checks import NotRun, expect
from clipq.testing.kernels.memory import overlapping
from clipq.testing.kernels.trial import REFUSALS, Trial, described, same

__all__ = ["compiles_and_exports", "gradient_matches", "refuses_bad_input"]

_SEVERAL_TILES = {"cpu": 136, "cuda": 2113}  # rows


def refuses_bad_input(trial: Trial) -> None:
    wrong = [(what, trial.moved(given)) for what, given in trial.operation.bad()]
    good = trial.moved(trial.ordinary())
    other = "cpu" if trial.device.type == "cuda" else "meta"
    wrong += [
        (f"{name} on another device", good | {name: value.to(other)})
        for name, value in good.items()
        if isinstance(value, Tensor)
    ]
    for what, given in wrong:
        try:
            trial.call(given)
        except REFUSALS as error:
            expect(str(error).strip(), f"{what} is refused without a word")
            continue
        except Exception as error:
            expect(False, f"{what} ends in {type(error).__name__}, not in a refusal")
        expect(False, f"{what} is taken without an error")
    if trial.spec.out:
        _refuses_shared_memory(trial)


def _refuses_shared_memory(trial: Trial) -> None:
    """Outputs that overlap must be refused, or filled as if they did not."""
    # More rows than a tile: within one, all may be read before the first is written.
    drawn = trial.ordinary(_SEVERAL_TILES[trial.device.type], width=64)
    shape, dtype = trial.output_of(drawn)
    given = trial.moved(drawn)
    # In memory for all rows: a kernel may overlook strides.
    room = torch.zeros(shape.numel(), dtype=dtype, device=trial.device)
    one_row = room[: shape[-1]].expand(shape)
    x, over_x = overlapping(given["x"], shape, dtype)
    for what, changed, out in (
        ("an output whose rows are one", given, one_row),
        ("an output that overlaps x", given | {"x": x}, over_x),
    ):
        try:
            trial.call(changed, out=out)
        except REFUSALS as error:
            expect(str(error).strip(), f"{what} is refused without a word")
        else:
            trial.agree(drawn, out, f", with {what}")


def gradient_matches(trial: Trial) -> None:
    if not trial.spec.gradient:
        raise NotRun("the kernel claims no gradient")
    function = _operator(trial) if trial.spec.operator else trial.kernel.call
    shapes = ((5,), 70), ((2, 3), 64), ((1,), 768)
    for seed, (choice, (leading, width)) in enumerate(product(trial.operation.choices(), shapes)):
        shape = (*leading, trial.operation.fitting(width, choice))
        dtype = trial.operation.dtype
        given = trial.operation.draw(choice, shape, dtype, seed)
        x, mine = given["x"].clone(), given["x"].clone().to(trial.device)
        # Laid out by columns: what arrives here need not be contiguous.
        upstream = (
            torch.linspace(-1, 2, x.numel()).view(x.shape[::-1]).permute(*range(x.dim())[::-1])
        )
        result = function(**trial.moved(given) | {"x": mine.requires_grad_()})
        expect(result.requires_grad, "no gradient reaches x")
        torch.autograd.backward(result, upstream.to(result.device, result.dtype))
        wanted = trial.operation.expected(given | {"x": x.requires_grad_()})
        torch.autograd.backward(wanted.values, upstream.to(wanted.values.dtype))
        slack = 0.0 if wanted.bound is None else max(1e-5, 2 * torch.finfo(dtype).eps)
        expect(
            mine.grad is not None
            and x.grad is not None
            and torch.allclose(mine.grad.cpu(), x.grad, rtol=slack, atol=slack),
            f"{described(given)}: the gradient of x differs",
        )


def compiles_and_exports(trial: Trial) -> None:
    if not trial.spec.operator:
        raise NotRun("the kernel is no torch operator")
    given = trial.moved(trial.ordinary())
    trial.call(given)  # a kernel that is built at its first call has no operator before
    operator = _operator(trial)
    if trial.spec.gradient:
        given["x"] = given["x"].clone().requires_grad_()
    try:
        torch.library.opcheck(operator, (), given)
    except Exception as error:  # torch raises whatever it stumbles over
        expect(False, f"torch.library.opcheck: {error}")

    class Twice(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = operator(**given | {"x": x}) * 2
            return result

    x = given["x"].detach()
    wanted = Twice()(x)
    compiled = torch.compile(Twice(), backend="aot_eager", fullgraph=True)(x)
    expect(same(compiled, wanted), "torch.compile changes the result")
    exported = torch.export.export(Twice(), (x,)).module()(x)
    expect(same(exported, wanted), "torch.export changes the result")


def _operator(trial: Trial) -> Any:
    namespace, _, name = trial.spec.operator.partition("::")
    return getattr(getattr(torch.ops, namespace), name).default
