"""Kernels compute what the reference computes: codes exactly, sums within derived bounds.

u = 2^-24 is half an ULP of 1 in float32. References of sums are float64 products of whole matrices.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from clipq.errors import KernelError
from clipq.kernels import device as devices
from clipq.kernels import hadamard, linear, operators, rounding
from clipq.quant import ActivationFormat
from clipq.quant.activations import DynamicQuantizer
from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
    quantize_codes,
)
from clipq.quant.grids import fake_quantize
from clipq.quant.transforms.hadamard import hadamard_matrix

U = 2.0**-24
DTYPES = (torch.float32, torch.float16)
if torch.cuda.is_available():
    DTYPES += (torch.bfloat16,)  # the interpreter truncates to bfloat16, where a GPU rounds
pytestmark = [
    # The interpreter computes with numpy, which warns of what the checks are about.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
]
COMPILED = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
SHAPES = ((1, 1), (5, 37), (2, 3, 130), (7, 4099))


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 3).to(dtype)


def whole(low, high, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator)


def grid_of(x, granularity, *, bits, asymmetric):
    values = x.float()
    if granularity == "tensor":
        low, high = values.amin(), values.amax()
    else:
        low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    low, high = low * 0.8, high * 0.8  # so that some values are clamped
    if asymmetric:
        return choose_qparams_asymmetric(low, high, bits=bits)
    return choose_qparams_symmetric(torch.maximum(high, -low), bits=bits)


def arguments(grid, device):
    zero = None if grid.zero_point is None else grid.zero_point.to(device)
    return (grid.scale.to(device), zero), {"low": grid.low, "high": grid.high}


def poisoned(shape, dtype, device):
    """Return an output that holds garbage, between guard bands that nothing may touch."""
    count = int(torch.Size(shape).numel())
    store = torch.full((count + 14,), 77, dtype=dtype, device=device)
    if dtype.is_floating_point:
        store[7:-7] = torch.nan
    return store, store[7 : 7 + count].view(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("bits", [8, 3])
def test_static_codes_and_values_are_the_references_bit_for_bit(
    shape, granularity, asymmetric, bits, device
):
    for dtype in DTYPES:
        x = normal(*shape, dtype=dtype)
        grid = grid_of(x, granularity, bits=bits, asymmetric=asymmetric)
        given, bounds = arguments(grid, device)
        store, out = poisoned(
            shape, torch.uint8 if asymmetric and bits == 8 else torch.int8, device
        )
        codes = rounding.quantize(x.to(device), *given, **bounds, out=out)
        assert torch.equal(codes.cpu().int(), quantize_codes(x, grid))
        assert (store[:7] == 77).all()
        assert (store[-7:] == 77).all()
        store, out = poisoned(shape, dtype, device)
        found = rounding.fake_quantize(x.to(device), *given, **bounds, out=out)
        assert torch.equal(found.cpu(), fake_quantize(x, grid))
        assert (store[:7] == 77).all()
        assert (store[-7:] == 77).all()


@pytest.mark.parametrize("group", [16, 33])
def test_groups_have_scales_of_their_own_and_the_last_may_be_short(group, device):
    x = normal(3, 100)
    groups = -(-100 // group)
    scale = normal(3, groups, seed=1).abs() + 0.01
    zero = whole(0, 15, 3, groups).float()
    spread = [t.repeat_interleave(group, 1)[:, :100] for t in (scale, zero)]
    expected = fake_quantize(x, QParams(*spread, 0, 15))
    found = rounding.fake_quantize(
        x.to(device), scale.to(device), zero.to(device), low=0, high=15, group=group
    )
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("group", [None, 16, 33])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 20000)], ids=str)
def test_dynamic_rounding_is_the_references_bit_for_bit(group, asymmetric, shape, device):
    for dtype in DTYPES:
        x = normal(*shape, dtype=dtype)
        number_format = ActivationFormat(8, dynamic=True, asymmetric=asymmetric, group=group)
        expected = DynamicQuantizer(number_format, over="features")(x)
        store, out = poisoned(shape, dtype, device)
        found = rounding.fake_quantize_dynamic(
            x.to(device), bits=8, asymmetric=asymmetric, group=group, out=out
        )
        assert torch.equal(found.cpu(), expected)
        assert (store[:7] == 77).all()
        assert (store[-7:] == 77).all()


def test_hard_values_round_as_the_reference_rounds_them(device):
    tiny = torch.finfo(torch.float32).tiny
    halves = torch.arange(-130.0, 130.0, 0.5)
    hard = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e38, -3e38, tiny / 4, 0.0, 1e-45])
    for scale in (1.0, tiny, 1e-20, 1e30):
        values = torch.cat([halves * scale, hard])
        grid = QParams(torch.tensor(scale), None, -128, 127)
        (s, _), bounds = arguments(grid, device)
        found = rounding.fake_quantize(values.to(device), s, **bounds).cpu()
        expected = fake_quantize(values, grid)
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
        finite = ~values.isnan()
        codes = rounding.quantize(values.to(device), s, **bounds).cpu()
        assert torch.equal(codes[finite].int(), quantize_codes(values[finite], grid))


@pytest.mark.parametrize("asymmetric", [False, True])
def test_nan_and_infinity_stay_in_their_row(asymmetric, device):
    x = normal(6, 50)
    x[1, 3], x[2, 49], x[4, 0] = torch.nan, torch.inf, -torch.inf
    x[5] = 0.0
    expected = DynamicQuantizer(
        ActivationFormat(8, dynamic=True, asymmetric=asymmetric), over="features"
    )(x)
    found = rounding.fake_quantize_dynamic(x.to(device), bits=8, asymmetric=asymmetric).cpu()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def layouts(x):
    """Return equal tensors that lie otherwise in memory."""
    spread = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 9, dtype=x.dtype)[..., ::2]
    padded = torch.full((len(x) + 2, x.shape[-1] + 5), 9, dtype=x.dtype)[1:-1, 3:-2]
    shifted = torch.full((x.numel() + 1,), 9, dtype=x.dtype)[1:].view(x.shape)
    for view in (spread, padded, shifted):
        view.copy_(x)
    return spread, padded, shifted, x.t().contiguous().t()


def test_strides_and_alignment_change_nothing(device):
    x = normal(9, 64)
    scale = torch.tensor(0.05, device=device)
    codes, weight = whole(-128, 127, 9, 64).to(torch.int8), whole(-128, 127, 18, 64).to(torch.int8)
    one = torch.tensor(0.01, device=device)

    def outcomes(x, codes):
        x, codes = x.to(device), codes.to(device)
        return (
            rounding.fake_quantize(x, scale, low=-128, high=127),
            rounding.fake_quantize_dynamic(x, bits=4),
            hadamard.hadamard(x),
            linear.linear_w8a8(codes, weight.to(device), x_scale=one, weight_scale=one),
        )

    expected = outcomes(x, codes)
    for mine, others in zip(layouts(x), layouts(codes), strict=True):
        for found, wanted in zip(outcomes(mine, others), expected, strict=True):
            assert torch.equal(found, wanted)
    for found, wanted in zip(outcomes(x[:0], codes[:0]), expected, strict=True):
        assert found.shape == (0, wanted.shape[1])
        assert found.dtype == wanted.dtype


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 70, 33), (130, 129, 17), (3, 4100, 9)], ids=str)
@pytest.mark.parametrize("activation", linear.ACTIVATIONS)
def test_w8a8_is_exact_but_for_its_epilogue(shape, activation, device):
    rows, depth, width = shape
    x = whole(-128, 127, rows, depth).to(torch.int8)
    weight = whole(-128, 127, width, depth, seed=1).to(torch.int8)
    x_scale, weight_scale = normal(rows, 1).abs() / depth, normal(width, seed=2).abs() / 100
    bias = normal(width, seed=3)
    for zero_point in (0, -7):
        total = (x.long() - zero_point) @ weight.long().t()
        product = total.double() * x_scale.double() * weight_scale.double()
        exact = product + bias.double()
        bound = 4 * U * (product.abs() + bias.abs())
        if activation != "none":
            exact = activated(exact, activation)
            bound = 4 * bound
        found = linear.linear_w8a8(
            x.to(device),
            weight.to(device),
            x_scale=x_scale.to(device),
            weight_scale=weight_scale.to(device),
            zero_point=zero_point,
            bias=bias.to(device),
            activation=activation,
        )
        assert ((found.cpu() - exact).abs() <= bound + 2.0**-149).all()


def activated(values, activation):
    match activation:
        case "gelu":
            return torch.nn.functional.gelu(values)
        case "gelu-tanh":
            return torch.nn.functional.gelu(values, approximate="tanh")
    return values * torch.sigmoid(1.702 * values)


def test_w8a8_sums_the_largest_codes_without_overflow_and_refuses_what_would(device):
    one = torch.ones((), device=device)
    x = torch.full((1, 131071), -128, dtype=torch.int8, device=device)
    found = linear.linear_w8a8(x, x, x_scale=one, weight_scale=one)
    assert found.item() == torch.tensor(131071 * 128 * 128).float().item()
    longer = torch.full((1, 131073), -128, dtype=torch.int8, device=device)
    with pytest.raises(KernelError, match=r"131073.*overflow"):
        linear.linear_w8a8(longer, longer, x_scale=one, weight_scale=one)


@pytest.mark.parametrize("group", [32, 128, 96])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("rows", [1, 17])
def test_w4a16_is_the_product_with_the_dequantized_weight(group, asymmetric, rows, device):
    depth, width = 96 if group == 96 else 1024, 33
    codes = whole(0, 15, width, depth) if asymmetric else whole(-8, 7, width, depth)
    scale = normal(width, depth // group).abs() + 0.01
    zero = whole(0, 15, width, depth // group).float() if asymmetric else None
    bias = normal(width, seed=4)
    spread = [0.0 if t is None else t.double().repeat_interleave(group, 1) for t in (scale, zero)]
    weight = (codes.double() - spread[1]) * spread[0]
    for dtype in DTYPES:
        x = normal(rows, depth, dtype=dtype)
        exact = x.double() @ weight.t() + bias.double()
        size = x.double().abs() @ weight.abs().t() + bias.abs()
        # Products of x and codes are exact; up to K + 8 sums and a scale round.
        bound = (depth + 8) * U * size + torch.finfo(dtype).eps / 2 * exact.abs()
        found = linear.linear_w4a16(
            x.to(device),
            linear.pack_codes(codes).to(device),
            scale.to(device),
            None if zero is None else zero.to(device),
            group=group,
            bias=bias.to(device),
        )
        assert found.dtype == dtype
        assert ((found.cpu().double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("size", [1, 2, 64, 1024, 12, 24, 96, 768])
def test_hadamard_is_the_product_with_the_matrix(size, device):
    base = hadamard_matrix(12)
    matrix = hadamard_matrix(size)
    if size % 12 == 0:
        matrix = torch.kron(base, hadamard_matrix(size // 12))
    signs = whole(0, 1, size).float() * 2 - 1
    known = base.float().to(device) if size % 12 == 0 else None
    for dtype in DTYPES:
        x = normal(5, size, dtype=dtype)
        for inverse in (False, True):
            wide = x.double() / size**0.5
            exact = (wide @ matrix.t()) * signs if inverse else (wide * signs) @ matrix
            found = hadamard.hadamard(x.to(device), signs.to(device), inverse=inverse, base=known)
            # log2 n stages, up to 12 sums, the factor.
            slack = (size.bit_length() + 14) * U * wide.abs().sum(-1, keepdim=True)
            bound = slack + torch.finfo(dtype).eps / 2 * exact.abs()
            assert ((found.cpu().double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("width", [1, 50, 768])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_layer_norm_codes_are_the_nearest_to_the_layer_norm(width, asymmetric, device):
    x, weight, bias = normal(7, width), normal(width, seed=1), normal(width, seed=2)
    scale, zero = torch.tensor(0.03), torch.tensor(-5.0) if asymmetric else None
    found = rounding.quantize_layer_norm(
        x.to(device),
        weight.to(device),
        bias.to(device),
        eps=1e-5,
        scale=scale.to(device),
        zero_point=None if zero is None else zero.to(device),
        low=-128,
        high=127,
    )
    wide = [t.double() for t in (x, weight, bias)]
    exact = torch.nn.functional.layer_norm(wide[0], (width,), wide[1], wide[2]) / scale.double()
    steps = (exact + (0.0 if zero is None else zero.double())).clamp(-128, 127)
    assert ((found.cpu().double() - steps).abs() <= 0.5 + 1e-3).all()


def test_gradients_are_straight_through(device):
    x = normal(6, 40)
    grid = grid_of(x, "row", bits=4, asymmetric=True)
    (scale, zero), bounds = arguments(grid, device)
    upstream = normal(6, 40, seed=5)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    found = operators.fake_quantize(mine.to(device), scale, zero, bounds["low"], bounds["high"])
    found.backward(upstream.to(device))
    fake_quantize(theirs, grid).backward(upstream)
    assert torch.equal(mine.grad, theirs.grad)
    assert 0 < (mine.grad == 0).sum() < mine.numel()

    number_format = ActivationFormat(8, dynamic=True, asymmetric=True, group=16)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    operators.fake_quantize_dynamic(mine.to(device), 8, True, 16).backward(upstream.to(device))
    DynamicQuantizer(number_format, over="features")(theirs).backward(upstream)
    assert torch.equal(mine.grad, theirs.grad)


def test_torch_accepts_the_operators(device):
    x = normal(4, 64).to(device)
    codes = whole(-128, 127, 4, 64).to(torch.int8).to(device)
    scale, weight_scale = torch.tensor(0.05, device=device), torch.ones(4, device=device)
    packed = linear.pack_codes(whole(-8, 7, 4, 64)).to(device)
    ops = torch.ops.clipq
    for operator, given in (
        (ops.quantize, (x, scale, None, -128, 127)),
        (ops.fake_quantize, (x.clone().requires_grad_(), scale, None, -128, 127)),
        (ops.fake_quantize_dynamic, (x.clone().requires_grad_(), 8)),
        (ops.linear_w8a8, (codes, codes, scale, weight_scale)),
        (ops.linear_w4a16, (x, packed, torch.ones(4, 2, device=device), None, 32)),
        (ops.hadamard, (x.clone().requires_grad_(),)),
        (ops.quantize_layer_norm, (x, None, None, 1e-5, scale, None, -128, 127)),
    ):
        torch.library.opcheck(operator.default, given)


def test_compile_and_export_keep_the_operators(device):
    class Rounded(torch.nn.Module):
        def forward(self, x):
            return torch.ops.clipq.fake_quantize_dynamic(x, 8) * 2

    x = normal(4, 64).to(device)
    expected = Rounded()(x)
    assert torch.equal(torch.compile(Rounded(), backend="aot_eager", fullgraph=True)(x), expected)
    assert torch.equal(torch.export.export(Rounded(), (x,)).module()(x), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rounding.quantize(x.double(), x[0, 0], low=0, high=9), "float64"),
        (lambda x: rounding.quantize(x, x, low=0, high=9), "scale has shape"),
        (lambda x: rounding.quantize(x, x[0, 0], low=0, high=999), "8-bit"),
        (lambda x: rounding.quantize(x, x[0, 0], low=0, high=9, out=x), "out is float32"),
        (lambda x: rounding.fake_quantize_dynamic(x, bits=9), "9 bits"),
        (lambda x: rounding.fake_quantize_dynamic(x, bits=8, group=0), "not positive"),
        (lambda x: hadamard.hadamard(normal(2, 20)), "size 20"),
        (lambda x: hadamard.hadamard(normal(2, 12)), "without a base"),
        (lambda x: linear.linear_w8a8(x, x, x_scale=x, weight_scale=x), "float32"),
        (
            lambda x: linear.linear_w4a16(
                x, torch.zeros(3, 32, dtype=torch.uint8), torch.ones(3, 1), group=48
            ),
            "group size 48 for K = 64",
        ),
        (lambda x: linear.pack_codes(torch.zeros(2, 3)), "shape"),
        (lambda x: linear.pack_codes(torch.full((2, 2), 16)), "16"),
    ],
)
def test_bad_input_is_refused_and_named(call, message):
    with pytest.raises(KernelError, match=message):
        call(normal(4, 64))


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(devices, "capability", lambda device: (7, 5))
    assert "7.5, the kernel needs 8.0" in devices.unusable(torch.device("cuda"))


def test_without_gpu_and_interpreter_a_kernel_says_what_it_needs():
    code = (
        "import torch; from clipq.kernels import rounding\n"
        "rounding.fake_quantize_dynamic(torch.ones(2, 2), bits=8)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=COMPILED
    )
    assert "TRITON_INTERPRET=1" in done.stderr
    assert "KernelError" in done.stderr


def test_the_interpreter_takes_over_where_triton_was_imported_before():
    code = (
        "import torch, triton, triton.language as tl\n"
        "from clipq.kernels.device import use_interpreter\n"
        "use_interpreter()\n"
        "from clipq.kernels.linear import linear_w8a8\n"
        "codes, one = torch.full((2, 3), 5, dtype=torch.int8), torch.ones(())\n"
        "print(linear_w8a8(codes, codes, x_scale=one, weight_scale=one).tolist())\n"
        "from clipq.kernels.rounding import fake_quantize_dynamic\n"
        "print(fake_quantize_dynamic(torch.tensor([[0.0, 127.4]]), bits=8).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=COMPILED
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[[75.0, 75.0], [75.0, 75.0]]"


@pytest.mark.parametrize("granularity", ["row", "group"])
def test_scales_may_be_a_part_of_something_wider(granularity, device):
    x = normal(6, 64)
    count = 1 if granularity == "row" else 2
    scale = (normal(6, count + 3, seed=1).abs() + 0.1)[:, :count]
    group = None if granularity == "row" else 32
    found = rounding.fake_quantize(x.to(device), scale.to(device), low=-8, high=7, group=group)
    whole = scale.repeat_interleave(64 // count, 1)
    assert torch.equal(found.cpu(), (x / whole).round().clamp(-8, 7) * whole)


def test_every_kernel_compiles_for_every_gpu():
    done = subprocess.run(
        [sys.executable, "-m", "clipq", "kernels", "compile"],
        capture_output=True,
        text=True,
        env=COMPILED,
    )
    assert done.returncode == 0, done.stderr
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert done.stdout.count(architecture) >= 15
    failed = subprocess.run(
        [sys.executable, "-m", "clipq", "kernels", "compile", "linear-w8a9"],
        capture_output=True,
        text=True,
        env=COMPILED,
    )
    assert failed.returncode == 2
    assert "did you mean 'linear-w8a8'" in failed.stderr
