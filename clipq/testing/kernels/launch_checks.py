"""Checks of launches: repetition, the order of programs, streams, graphs, devices, far offsets."""

from __future__ import annotations

import torch
from torch import Tensor

from clipq.testing.checks import NotRun, expect
from clipq.testing.kernels.interpreted import last_program_first
from clipq.testing.kernels.memory import reserved
from clipq.testing.kernels.trial import Trial, described, same

__all__ = [
    "addresses_far_rows",
    "captures_in_a_graph",
    "follows_the_stream",
    "ignores_program_order",
    "is_deterministic",
    "runs_on_any_device",
]

_REPEATS = {"cuda": 20, "cpu": 2}
_SHAPES = {
    "cuda": ((5, 70), (130, 520), (257, 768), (2113, 1024)),
    "cpu": ((5, 70), (36, 520), (16, 768), (3, 4099)),
}
_FAR = 2**31 + 2**20  # elements: the last ones lie beyond what 32 bits address


def is_deterministic(trial: Trial) -> None:
    for rows, width in _SHAPES[trial.device.type]:
        given = trial.moved(trial.ordinary(rows, width=width))
        wanted = trial.call(given)
        for _ in range(_REPEATS[trial.device.type]):
            expect(same(trial.call(given), wanted), f"{described(given)}: a repetition differs")


def ignores_program_order(trial: Trial) -> None:
    if not trial.interpreted:
        raise NotRun("only Triton's interpreter can run programs in another order")
    for rows, width in _SHAPES["cpu"]:
        given = trial.moved(trial.ordinary(rows, width=width))
        wanted = trial.call(given)
        with last_program_first():
            expect(
                same(trial.call(given), wanted),
                f"{described(given)}: the order of programs changes the result",
            )


def follows_the_stream(trial: Trial) -> None:
    device = trial.gpu()
    given = trial.moved(trial.ordinary(33, width=200))
    wanted = trial.call(given)
    late = {n: torch.zeros_like(v) for n, v in given.items() if isinstance(v, Tensor)}
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        torch.cuda._sleep(100_000_000)  # type: ignore[no-untyped-call]  # inputs arrive after whatever does not wait
        for name, value in late.items():
            value.copy_(given[name])
        result = trial.call(given | late)
        torch.cuda.current_stream(device).synchronize()
    expect(same(result, wanted), "on a stream of its own, it ran before its inputs were there")


def captures_in_a_graph(trial: Trial) -> None:
    trial.gpu()
    first, second = (trial.moved(trial.ordinary(33, width=200, seed=seed)) for seed in (0, 10))
    wanted = trial.call(second)
    trial.call(first)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = trial.call(first)
    for name, value in first.items():
        if isinstance(value, Tensor):
            value.copy_(second[name])
    graph.replay()
    torch.cuda.synchronize()
    expect(same(result, wanted), "a graph, replayed on new inputs, gives another result")


def runs_on_any_device(trial: Trial) -> None:
    trial.gpu()
    if torch.cuda.device_count() < 2:
        raise NotRun("there is one GPU")
    given = trial.ordinary(33, width=200)
    for number in range(2):
        with torch.cuda.device(1 - number):
            result = trial.call(trial.moved(given, torch.device("cuda", number)))
        expect(result.device.index == number, f"a result for GPU {number} is on {result.device}")
        trial.agree(given, result, f", on GPU {number} while GPU {1 - number} is current")


def addresses_far_rows(trial: Trial) -> None:
    _rows_far_apart(trial) if trial.device.type == "cpu" else _many_rows(trial)


def _rows_far_apart(trial: Trial) -> None:
    """Three rows in memory that is only reserved: many would take the CPU days."""
    small = min(trial.dtypes(), key=lambda dtype: dtype.itemsize)
    shape = (3, trial.operation.fitting(64))
    given = trial.operation.draw(trial.operation.first(), shape, small)
    x = given["x"]
    far = reserved(2**32, x.dtype).as_strided(shape, (2**30, 1), 2**31)
    far.copy_(x)
    # The last row lies 2^31 elements from the first; in 32 bits, as many before it.
    expect(
        same(trial.call(given | {"x": far}), trial.call(given)),
        f"{described(given)}: rows 2^30 elements apart give another result",
    )


def _many_rows(trial: Trial) -> None:
    device = trial.gpu()
    width = trial.operation.fitting(4096)
    rows = _FAR // width
    free = torch.cuda.mem_get_info(device)[0]
    if free < 24 * _FAR:
        raise NotRun(f"{free / 2**30:.0f} GiB of GPU memory are free, 48 are needed")
    few = trial.ordinary(64, width=4096)
    given = trial.moved(few)
    for name in ("x", "scale", "zero_point", "x_scale"):
        part = given.get(name)
        if isinstance(part, Tensor) and part.dim() > 1 and len(part) == 64:
            given[name] = part.repeat(-(-rows // 64), *(1,) * (part.dim() - 1))
    result = trial.call(given)
    wanted = trial.operation.expected(few)
    for place, part in (("first", result[:64]), ("last", result[-64:])):
        difference = wanted.disagreement(part)
        expect(not difference, f"{place} of {len(result):,} rows: {difference}")
