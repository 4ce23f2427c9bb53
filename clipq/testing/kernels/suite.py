"""The checks of one kernel: how each of `CHECKS` is carried out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from clipq.errors import ClipqError
from clipq.kernels.device import CAPABILITY, interpreting, unusable
from clipq.kernels.kernel_spec import Kernel
from clipq.testing.checks import NotRun, expect
from clipq.testing.kernels.memory import filled_memory, layouts, overlapping, reserved, shifted
from clipq.testing.kernels.operation import Arguments, Expected, Operation
from clipq.testing.kernels.operations import operation_of

__all__ = ["Suite"]

_REFUSALS = (ClipqError, ValueError, TypeError, RuntimeError, NotImplementedError)
_GUARD = 4096  # elements before and after an output: what a missing mask would overwrite
_REPEATS = {"cuda": 20, "cpu": 2}
_IN_FLOAT32 = {  # beyond what half precision holds, or exact to the last bit
    "rounds-half-to-even",
    "saturates",
    "keeps-subnormals",
    "takes-extreme-scales",
    "accumulates-exactly",
    "survives-large-k",
}
_FAR = 2**31 + 2**20  # elements: the last ones lie beyond what 32 bits address


class Suite:
    """Checks of one kernel; their names are those of `CHECKS`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.spec = kernel.spec
        self.operation: Operation = operation_of(kernel.spec)

    def check(self, name: str) -> Callable[[], None]:
        own = getattr(self, name.replace("-", "_"), None)

        def run() -> None:
            reason = self.operation.not_about.get(name, "")
            if reason:
                raise NotRun(reason)
            if name in _IN_FLOAT32 and "float32" not in self.spec.dtypes:
                raise NotRun("its cases are float32, which the kernel does not claim")
            with _quiet():
                if own is None:
                    self.holds(name)
                else:
                    own()

        return run

    # -- where and how it is called ----------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        """The device of numeric checks."""
        runs_on = self.spec.runs_on
        on_cpu = runs_on == "cpu" or (runs_on == "interpreter" and interpreting())
        if torch.cuda.is_available() and not on_cpu:
            device = torch.device("cuda", torch.cuda.current_device())
            actual = torch.cuda.get_device_capability(device)
            if actual < self.spec.capability:
                has, wanted = (".".join(map(str, c)) for c in (actual, self.spec.capability))
                raise NotRun(f"the GPU has compute capability {has}, the kernel needs {wanted}")
            return device
        if runs_on == "cuda":
            raise NotRun("there is no GPU, and the kernel has no interpreter")
        if runs_on == "interpreter":
            reason = unusable(torch.device("cpu"), least=CAPABILITY)
            if reason:
                raise NotRun(reason)
        return torch.device("cpu")

    @property
    def where(self) -> str:
        """What numeric checks run on, for reports; "" where they cannot run."""
        try:
            device = self.device
        except NotRun:
            return ""
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        return "Triton's interpreter" if self.interpreted else "cpu"

    @property
    def interpreted(self) -> bool:
        return self.device.type == "cpu" and self.spec.runs_on == "interpreter" and interpreting()

    def gpu(self) -> torch.device:
        """Return the GPU that the kernel runs on."""
        if self.device.type != "cuda":
            raise NotRun("there is no GPU")
        return self.device

    def dtypes(self) -> list[torch.dtype]:
        names = [name for name in self.spec.dtypes if name != "bfloat16"]
        return [getattr(torch, name) for name in names or self.spec.dtypes]

    def moved(self, given: Arguments, device: torch.device | None = None) -> Arguments:
        where = device or self.device
        return {
            name: value.to(where) if isinstance(value, Tensor) else value
            for name, value in given.items()
        }

    def call(self, given: Arguments, **more: Any) -> Tensor:
        """Call with arguments that lie on the device already."""
        result: Tensor = self.kernel.call(**given, **more)
        return result

    def agree(self, given: Arguments, found: Tensor, about: str = "") -> Expected:
        wanted = self.operation.expected(given)
        difference = wanted.disagreement(found)
        expect(not difference, f"{_described(given)}{about}: {difference}")
        return wanted

    def holds(self, name: str) -> None:
        """Check the calls that the operation has for a check of this name."""
        if not hasattr(self.operation, name.replace("-", "_")):
            raise NotRun(f"{self.spec.operation} has no such case")
        cases = list(self.operation.hard(name))
        if not cases:
            raise NotRun("its cases are of a dtype that the kernel does not claim")
        for given in cases:
            self.agree(given, self.call(self.moved(given)))

    def ordinary(self, rows: int = 5, width: int = 70, seed: int = 0) -> Arguments:
        operation = self.operation
        shape = (rows, operation.fitting(width))
        return operation.draw(operation.first(), shape, self.dtypes()[0], seed)

    def varied(self, rows: int, width: int) -> Iterator[Arguments]:
        """Yield an ordinary call for each set of tensors, by shape, that the kernel takes."""
        seen = set()
        shape = (rows, self.operation.fitting(width))
        for choice in self.operation.choices():
            given = self.operation.draw(choice, shape, self.dtypes()[0])
            tensors = {n: v.shape for n, v in given.items() if isinstance(v, Tensor)}
            if tuple(tensors.items()) not in seen:
                seen.add(tuple(tensors.items()))
                yield given

    def output_of(self, given: Arguments) -> tuple[torch.Size, torch.dtype]:
        wanted = self.operation.expected(given)
        return wanted.values.shape, wanted.dtype

    # -- values ------------------------------------------------------------------------------

    def matches_reference(self) -> None:
        for dtype in self.dtypes():
            self._matches(dtype)

    def rounds_bfloat16(self) -> None:
        if "bfloat16" not in self.spec.dtypes:
            raise NotRun("the kernel does not claim bfloat16")
        if self.interpreted:
            raise NotRun("Triton's interpreter truncates to bfloat16 where a GPU rounds")
        self._matches(torch.bfloat16)

    def _matches(self, dtype: torch.dtype) -> None:
        operation = self.operation
        for seed, shape in enumerate(operation.shapes()):
            for choice in operation.choices():
                given = operation.draw(choice, shape, dtype, seed)
                self.agree(given, self.call(self.moved(given)))

    def accumulates_exactly(self) -> None:
        if not hasattr(self.operation, "accumulates_exactly"):
            raise NotRun("adds no integers")
        for given in self.operation.hard("accumulates-exactly"):
            sums = self.call(self.moved(given)).cpu().double()
            exact = self.operation.expected(given).values.float().double()
            difference = float((sums - exact).abs().max())
            expect(
                torch.equal(sums, exact),
                f"{_described(given)}: sums of integers are off by up to {difference:g}",
            )

    def survives_large_k(self) -> None:
        if not hasattr(self.operation, "survives_large_k"):
            raise NotRun("adds no integers")
        for given in self.operation.hard("survives-large-k"):
            try:
                sums = self.call(self.moved(given))
            except _REFUSALS:
                continue
            exact = self.operation.expected(given).values.float()
            expect(
                torch.equal(sums.cpu().float(), exact),
                f"{_described(given)}: {sums.flatten()[0].item():g} for "
                f"{exact.flatten()[0].item():g}, and no error: sums overflow",
            )

    # -- memory ------------------------------------------------------------------------------

    def takes_strided_inputs(self) -> None:
        for drawn in (*self.varied(6, 64), self.ordinary(1, 64)):
            given = self.moved(drawn)
            wanted = self.call(given)
            for name, value in given.items():
                if not isinstance(value, Tensor) or not value.dim():
                    continue
                for layout, view in layouts(value):
                    expect(
                        _same(self.call(given | {name: view}), wanted),
                        f"{_described(given)}: {name} {layout}, strides {view.stride()}, gives "
                        "another result than a contiguous one",
                    )
        given = self.moved(self.ordinary(6, 64))
        repeated = given["x"][:1].expand(given["x"].shape)
        expect(
            _same(self.call(given | {"x": repeated}), self.call(given | {"x": repeated.clone()})),
            f"{_described(given)}: x with one row expanded gives another result than its copy",
        )

    def takes_unaligned_pointers(self) -> None:
        for drawn in self.varied(6, 64):
            given = self.moved(drawn)
            wanted = self.call(given)
            for name, value in given.items():
                if not isinstance(value, Tensor):
                    continue
                for shift in (1, 3):
                    moved = shifted(value, shift)
                    expect(
                        _same(self.call(given | {name: moved}), wanted),
                        f"{_described(given)}: {name} that starts {shift} elements into its "
                        "memory gives another result",
                    )
        if self.spec.out:
            out = shifted(torch.zeros_like(wanted), 1)
            self.call(given, out=out)
            expect(_same(out, wanted), f"{_described(given)}: an unaligned output differs")

    def takes_empty_inputs(self) -> None:
        for given in self.varied(2, 64):
            shape, dtype = self.output_of(given)
            wanted = (0, *shape[1:])
            empty = dict(given)
            for name in ("x", "scale", "zero_point", "x_scale"):
                part = given.get(name)
                if isinstance(part, Tensor) and part.dim() > 1 and len(part) == 2:
                    empty[name] = part[:0]
            result = self.call(self.moved(empty))
            expect(
                result.shape == wanted and result.dtype == dtype,
                f"no rows give {tuple(result.shape)} of {result.dtype}, not {wanted} of {dtype}",
            )

    def writes_every_element(self) -> None:
        for rows, width in ((5, 70), (33, 200), (3, 4099)):
            given = self.ordinary(rows, width)
            moved = self.moved(given)
            if self.spec.out:
                for poison in (torch.nan, 77, 0):
                    _, out = self._guarded(given, poison)
                    result = self.call(moved, out=out)
                    expect(result.data_ptr() == out.data_ptr(), "the result is not in out")
                    self.agree(given, out, ", on an output that held garbage")
            with filled_memory():
                self.agree(given, self.call(moved), ", on memory that held garbage")

    def writes_nothing_else(self) -> None:
        for rows, width in ((5, 70), (33, 200), (1, 4099)):
            given = self.ordinary(rows, width)
            moved = self.moved(given)
            before = {n: v.clone() for n, v in moved.items() if isinstance(v, Tensor)}
            if self.spec.out:
                store, out = self._guarded(given, 77)
                self.call(moved, out=out)
                bands = torch.cat([store[:_GUARD], store[-_GUARD:]])
                expect(
                    (bands == 77).all(),
                    f"{_described(given)}: {int((bands != 77).sum())} elements beside the output "
                    "were written",
                )
            else:
                self.call(moved)
            for name, value in before.items():
                expect(_same(moved[name], value), f"{_described(given)}: {name} was written to")

    def keeps_earlier_results(self) -> None:
        given, other = (self.moved(self.ordinary(seed=seed)) for seed in (0, 10))
        first = self.call(given)
        copy = first.clone()
        wanted = self.call(other)
        expect(_same(first, copy), "a later call changed the result of an earlier one")
        for name, value in given.items():
            if isinstance(value, Tensor):
                value.copy_(other[name])
        expect(
            _same(self.call(given), wanted),
            "on new values in the same memory, a call gives the result of an earlier one",
        )

    def _guarded(self, given: Arguments, poison: float) -> tuple[Tensor, Tensor]:
        """Return memory, and an output that holds `poison` between two guard bands of it."""
        shape, dtype = self.output_of(given)
        count = shape.numel()
        store = torch.full((count + 2 * _GUARD,), 77, dtype=dtype, device=self.device)
        inner = store[_GUARD:-_GUARD]
        inner.fill_(poison if dtype.is_floating_point or poison == poison else 99)
        return store, inner.view(shape)

    # -- order and time ----------------------------------------------------------------------

    def is_deterministic(self) -> None:
        for rows, width in ((5, 70), (130, 520)):
            given = self.moved(self.ordinary(rows, width))
            wanted = self.call(given)
            for _ in range(_REPEATS[self.device.type]):
                expect(
                    _same(self.call(given), wanted), f"{_described(given)}: a repetition differs"
                )

    def ignores_program_order(self) -> None:
        if not self.interpreted:
            raise NotRun("only Triton's interpreter can run programs in another order")
        for rows, width in ((130, 520), (3, 4099)):
            given = self.moved(self.ordinary(rows, width))
            wanted = self.call(given)
            with _last_program_first():
                expect(
                    _same(self.call(given), wanted),
                    f"{_described(given)}: the order of programs changes the result",
                )

    def follows_the_stream(self) -> None:
        device = self.gpu()
        given = self.moved(self.ordinary(33, 200))
        wanted = self.call(given)
        late = {n: torch.zeros_like(v) for n, v in given.items() if isinstance(v, Tensor)}
        torch.cuda.synchronize(device)
        with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
            torch.cuda._sleep(100_000_000)  # type: ignore[no-untyped-call]  # inputs arrive after whatever does not wait
            for name, value in late.items():
                value.copy_(given[name])
            result = self.call(given | late)
            torch.cuda.current_stream(device).synchronize()
        expect(_same(result, wanted), "on a stream of its own, it ran before its inputs were there")

    def captures_in_a_graph(self) -> None:
        self.gpu()
        first, second = (self.moved(self.ordinary(33, 200, seed)) for seed in (0, 10))
        wanted = self.call(second)
        self.call(first)  # compiled before the capture
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.call(first)
        for name, value in first.items():
            if isinstance(value, Tensor):
                value.copy_(second[name])
        graph.replay()
        torch.cuda.synchronize()
        expect(_same(result, wanted), "a graph, replayed on new inputs, gives another result")

    def runs_on_any_device(self) -> None:
        self.gpu()
        if torch.cuda.device_count() < 2:
            raise NotRun("there is one GPU")
        given = self.ordinary(33, 200)
        for number in range(2):
            with torch.cuda.device(1 - number):
                result = self.call(self.moved(given, torch.device("cuda", number)))
            expect(
                result.device.index == number, f"a result for GPU {number} is on {result.device}"
            )
            self.agree(given, result, f", on GPU {number} while GPU {1 - number} is current")

    def addresses_far_rows(self) -> None:
        self._rows_far_apart() if self.device.type == "cpu" else self._many_rows()

    def _rows_far_apart(self) -> None:
        """Three rows in memory that is only reserved: many would take the CPU days."""
        small = min(self.dtypes(), key=lambda dtype: dtype.itemsize)
        shape = (3, self.operation.fitting(64))
        given = self.operation.draw(self.operation.first(), shape, small)
        x = given["x"]
        far = reserved(2**32, x.dtype).as_strided(shape, (2**30, 1), 2**31)
        far.copy_(x)
        # The last row lies 2^31 elements from the first; in 32 bits, as many before it.
        expect(
            _same(self.call(given | {"x": far}), self.call(given)),
            f"{_described(given)}: rows 2^30 elements apart give another result",
        )

    def _many_rows(self) -> None:
        device = self.gpu()
        width = self.operation.fitting(4096)
        rows = _FAR // width
        free = torch.cuda.mem_get_info(device)[0]
        if free < 24 * _FAR:
            raise NotRun(f"{free / 2**30:.0f} GiB of GPU memory are free, 48 are needed")
        few = self.ordinary(64, 4096)
        given = self.moved(few)
        for name in ("x", "scale", "zero_point", "x_scale"):
            part = given.get(name)
            if isinstance(part, Tensor) and part.dim() > 1 and len(part) == 64:
                given[name] = part.repeat(-(-rows // 64), *(1,) * (part.dim() - 1))
        result = self.call(given)
        wanted = self.operation.expected(few)
        for place, part in (("first", result[:64]), ("last", result[-64:])):
            difference = wanted.disagreement(part)
            expect(not difference, f"{place} of {len(result):,} rows: {difference}")

    # -- what it refuses, and what torch makes of it ---------------------------------------------

    def refuses_bad_input(self) -> None:
        wrong = [(what, self.moved(given)) for what, given in self.operation.bad()]
        good = self.moved(self.ordinary())
        other = "cpu" if self.device.type == "cuda" else "meta"
        wrong += [
            (f"{name} on another device", good | {name: value.to(other)})
            for name, value in good.items()
            if isinstance(value, Tensor)
        ]
        for what, given in wrong:
            try:
                self.call(given)
            except _REFUSALS as error:
                expect(str(error).strip(), f"{what} is refused without a word")
                continue
            except Exception as error:
                expect(False, f"{what} ends in {type(error).__name__}, not in a refusal")
            expect(False, f"{what} is taken without an error")
        if self.spec.out:
            self._refuses_shared_memory()

    def _refuses_shared_memory(self) -> None:
        """Outputs that overlap must be refused, or filled as if they did not."""
        drawn = self.ordinary(8, 64)
        shape, dtype = self.output_of(drawn)
        given = self.moved(drawn)
        # In memory for all rows: a kernel may overlook strides.
        room = torch.zeros(shape.numel(), dtype=dtype, device=self.device)
        one_row = room[: shape[-1]].expand(shape)
        x, over_x = overlapping(given["x"], shape, dtype)
        for what, changed, out in (
            ("an output whose rows are one", given, one_row),
            ("an output that overlaps x", given | {"x": x}, over_x),
        ):
            try:
                self.call(changed, out=out)
            except _REFUSALS as error:
                expect(str(error).strip(), f"{what} is refused without a word")
            else:
                self.agree(drawn, out, f", with {what}")

    def gradient_matches(self) -> None:
        if not self.spec.gradient:
            raise NotRun("the kernel claims no gradient")
        function = self._operator() if self.spec.operator else self.kernel.call
        for seed, choice in enumerate(self.operation.choices()):
            shape = (5, self.operation.fitting(70))
            dtype = self.operation.dtype
            given = self.operation.draw(choice, shape, dtype, seed)
            x, mine = given["x"].clone(), given["x"].clone().to(self.device)
            # Laid out by columns: what arrives here need not be contiguous.
            upstream = torch.linspace(-1, 2, x.numel()).view(x.shape[::-1]).t()
            result = function(**self.moved(given) | {"x": mine.requires_grad_()})
            expect(result.requires_grad, "no gradient reaches x")
            torch.autograd.backward(result, upstream.to(result.device, result.dtype))
            wanted = self.operation.expected(given | {"x": x.requires_grad_()})
            torch.autograd.backward(wanted.values, upstream.to(wanted.values.dtype))
            slack = 0.0 if wanted.bound is None else max(1e-5, 2 * torch.finfo(dtype).eps)
            expect(
                mine.grad is not None
                and x.grad is not None
                and torch.allclose(mine.grad.cpu(), x.grad, rtol=slack, atol=slack),
                f"{_described(given)}: the gradient of x differs",
            )

    def compiles_and_exports(self) -> None:
        if not self.spec.operator:
            raise NotRun("the kernel is no torch operator")
        given = self.moved(self.ordinary())
        self.call(given)  # a kernel that is built at its first call has no operator before
        operator = self._operator()
        if self.spec.gradient:
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
        expect(_same(compiled, wanted), "torch.compile changes the result")
        exported = torch.export.export(Twice(), (x,)).module()(x)
        expect(_same(exported, wanted), "torch.export changes the result")

    def _operator(self) -> Any:
        namespace, _, name = self.spec.operator.partition("::")
        return getattr(getattr(torch.ops, namespace), name).default


def _described(given: Arguments) -> str:
    parts = [f"x {tuple(given['x'].shape)} {str(given['x'].dtype).removeprefix('torch.')}"]
    for name, value in given.items():
        if name != "x" and not isinstance(value, Tensor) and value is not None:
            parts.append(f"{name}={str(value).removeprefix('torch.')}")
    return ", ".join(parts)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same, NaN for NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


@contextmanager
def _last_program_first() -> Iterator[None]:
    """Make Triton's interpreter run programs in the opposite order."""
    from triton.runtime.interpreter import interpreter_builder as builder

    own = builder.set_grid_idx

    def from_the_end(*place: int) -> None:
        own(*(size - 1 - at for size, at in zip(builder.grid_dim, place, strict=True)))

    builder.set_grid_idx = from_the_end
    try:
        yield
    finally:
        del builder.set_grid_idx


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and filters that make errors of them, from deciding a check.

    numpy, by which the interpreter computes, warns of overflow; torch of its own tests' gradients.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
