"""The shapes, options and values at which a kernel is compared meet every kind that matters."""

from __future__ import annotations

from itertools import combinations, product
from math import prod

import pytest
import torch

from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.quant.transforms.hadamard import hadamard_matrix
from clipq.testing import Violation
from clipq.testing.kernels import real_shapes as shapes
from clipq.testing.kernels.covering import all_combinations, covering
from clipq.testing.kernels.operation import exactly_added
from clipq.testing.kernels.operations import operation_of
from clipq.testing.kernels.rows import Hadamard
from clipq.testing.kernels.trial import Trial
from clipq.testing.kernels.value_checks import cases

CLIP = {512, 640, 768, 1024, 1280, 2048, 2560, 3072, 4096, 5120}
PRODUCT = KernelSpec(
    operation="linear-w8a8",
    granularities=("row", "tensor"),
    activations=("none", "gelu"),
    ulps=4,
    runs_on="cpu",
)


def kind_of(length: int) -> tuple[bool, ...]:
    return tuple(length % size == 0 for size in (16, 32, 64, 128, 256))


@pytest.mark.parametrize(
    "sizes", [(2, 2), (5, 3, 2), (7, 6, 4, 3, 2, 2), (11, 15, 12, 3, 2, 2, 3, 4)]
)
def test_any_two_levels_of_two_factors_meet_in_a_covering_design(sizes):
    factors = {f"factor {i}": range(size) for i, size in enumerate(sizes)}
    design = covering(factors)
    assert design == covering(factors)
    for one, other in combinations(factors, 2):
        met = {(case[one], case[other]) for case in design}
        assert met == set(product(factors[one], factors[other]))
    largest, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert largest * second <= len(design) <= max(prod(sizes) // 2, largest * second + 1) + 12


def test_one_factor_is_all_its_levels():
    assert covering({"rows": (1, 2)}) == all_combinations({"rows": (1, 2)})


@pytest.mark.parametrize("few", [False, True])
def test_ladders_go_through_every_width_of_clip_and_every_alignment(few):
    ladder = [s.depth for s in shapes.depth_ladder(shapes.LENGTHS, beyond=True, few=few)]
    columns = [s.columns for s in shapes.column_ladder(few=few)]
    rows = [s.rows for s in shapes.row_ladder(few=few)]
    for lengths in (ladder, columns):
        assert set(lengths) >= CLIP
    for lengths in (ladder, columns, rows):
        # Multiples of 16, of 32 ... and of none, below a block's end, at it and above it.
        assert len({kind_of(length) for length in lengths}) == 6
        assert {1, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257} <= set(lengths)
    assert any(8192 < length < 32768 for length in ladder)
    assert max(ladder) > 2**15


def test_waves_have_more_rows_and_more_tiles_than_a_gpu_runs_at_once():
    found = list(shapes.waves(columns=True))
    assert max(shape.rows for shape in found) > 2**16
    assert any(132 * 128 < shape.rows < 132 * 128 + 128 for shape in found)
    assert any((s.rows // 128) * (s.columns // 128) > 2 * 114 for s in found)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 77, 257, 2113, 17017, 65565])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_leading_dimensions_hold_all_rows(rows, count):
    found = shapes.leading(rows, count)
    assert len(found) == count
    assert prod(found) == rows


def test_options_meet_in_all_combinations_at_aligned_and_ragged_depths():
    kernel = Trial(Kernel(lambda: None, PRODUCT))
    met = set()
    for shape, choice, dtype in cases(kernel, kernel.dtypes()):
        options = choice["bias"], choice["zero_point"], choice["activation"]
        met.add((*options, shape.depth % 64 == 0, shape.depth % 16 == 0))
        met.add((*options, "dims", shape.dims))
        met.add((*options, str(dtype)))
    for options in product((True, False), (True, False), ("none", "gelu")):
        assert {(*options, True, True), (*options, False, True), (*options, False, False)} <= met
        assert {(*options, "dims", dims) for dims in (2, 3, 4)} <= met
        assert {(*options, f"torch.{name}") for name in ("float32", "float16")} <= met


def test_sums_that_are_said_to_be_exact_are_so_in_any_order():
    generator = torch.Generator().manual_seed(5)
    terms = torch.randint(-900, 900, (40, 4096), generator=generator) * 2.0**-6
    terms[20:] *= 1.0 + torch.rand(20, 1, generator=generator)
    said = exactly_added(terms, 2.0**-6).flatten()
    assert said.tolist() == [True] * 20 + [False] * 20
    for _ in range(3):
        order = torch.randperm(4096, generator=generator)
        sums = torch.zeros(20)
        for column in terms[:20, order].t():
            sums = sums + column
        assert torch.equal(sums.double(), terms[:20].double().sum(-1))


@pytest.mark.parametrize("size", [1, 2, 8, 64, 12, 48, 768])
@pytest.mark.parametrize("inverse", [False, True])
def test_the_reference_of_a_transform_is_the_product_with_the_whole_matrix(size, inverse):
    operation = Hadamard(KernelSpec(operation="hadamard", sizes=(size,)))
    given = operation.draw({"signs": True, "inverse": inverse}, (2, 3, size), torch.float32)
    matrix = hadamard_matrix(12) if size % 12 == 0 else torch.ones(1, 1, dtype=torch.float64)
    matrix = torch.kron(matrix, hadamard_matrix(size // len(matrix))) / size**0.5
    assert torch.allclose(matrix @ matrix.t(), torch.eye(size, dtype=torch.float64))
    turn = torch.diag(given["signs"].double()) @ matrix
    wanted = given["x"].double() @ (turn.t() if inverse else turn)
    assert torch.allclose(operation.expected(given).values, wanted, atol=1e-12)


@pytest.mark.parametrize("width", [2, 255, 768, 5120])
def test_codes_of_whole_values_tell_when_one_of_thousands_is_not_counted(width):
    operation = operation_of(KernelSpec(operation="quantize-layer-norm", ulps=16))
    choice = {"weight": True, "bias": True, "asymmetric": False}
    given = operation.draw(choice, (3, width), torch.float32, seed=1)
    wanted = operation.expected(given)
    x = given["x"].double()
    for counted, right in ((x, True), (x[:, :-1], False)):
        mean = counted.mean(-1, keepdim=True)
        deviation = ((counted - mean).square().mean(-1, keepdim=True) + given["eps"]).sqrt()
        steps = ((x - mean) / deviation * given["weight"] + given["bias"]) / given["scale"]
        codes = steps.round().clamp(-128, 127).to(torch.int8)
        assert (wanted.disagreement(codes) == "") is right


def test_a_claimed_shape_may_not_be_refused_and_one_beyond_may():
    def refuses(x, **given):
        raise ValueError("no")

    trial = Trial(Kernel(refuses, PRODUCT))
    choice = trial.operation.first()
    with pytest.raises(Violation, match=r"is claimed, and refused: no"):
        trial.agrees_at(shapes.Shape(2, 4096), choice, torch.float32, 0)
    trial.agrees_at(shapes.Shape(2, 32768), choice, torch.float32, 0)
