"""What is clipq's own in its kernels: paths, limits and errors beside the conformance suite.

`reliability_tests/test_kernels.py` runs that suite. u = 2^-24 is half an ULP of 1 in float32.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from clipq.errors import KernelError
from clipq.kernels import device as devices
from clipq.kernels import hadamard_kernel, linear_kernels, rounding_kernels
from clipq.kernels.launch import Launch, run
from clipq.quant import ActivationFormat
from clipq.quant.activations import DynamicQuantizer
from clipq.testing.kernels.operation import normal, whole

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


def run_compiled(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python where nothing has asked for the interpreter yet."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=COMPILED
    )


def poisoned(shape, dtype, device):
    """Return an output that holds garbage, between guard bands that nothing may touch."""
    count = int(torch.Size(shape).numel())
    store = torch.full((count + 14,), 77, dtype=dtype, device=device)
    if dtype.is_floating_point:
        store[7:-7] = torch.nan
    return store, store[7 : 7 + count].view(shape)


@pytest.mark.parametrize("group", [None, 16, 33])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_rows_that_no_block_holds_are_read_twice(group, asymmetric, device):
    shape = (2, 20000)
    for dtype in DTYPES:
        x = normal(*shape, dtype=dtype)
        number_format = ActivationFormat(8, dynamic=True, asymmetric=asymmetric, group=group)
        expected = DynamicQuantizer(number_format, over="features")(x)
        store, out = poisoned(shape, dtype, device)
        found = rounding_kernels.fake_quantize_dynamic(
            x.to(device), bits=8, asymmetric=asymmetric, group=group, out=out
        )
        assert torch.equal(found.cpu(), expected)
        assert (store[:7] == 77).all()
        assert (store[-7:] == 77).all()


def test_w8a8_sums_the_largest_codes_without_overflow_and_refuses_what_would(device):
    one = torch.ones((), device=device)
    x = torch.full((1, 131071), -128, dtype=torch.int8, device=device)
    found = linear_kernels.linear_w8a8(x, x, x_scale=one, weight_scale=one)
    assert found.item() == torch.tensor(131071 * 128 * 128).float().item()
    longer = torch.full((1, 131073), -128, dtype=torch.int8, device=device)
    with pytest.raises(KernelError, match=r"131073.*overflow"):
        linear_kernels.linear_w8a8(longer, longer, x_scale=one, weight_scale=one)


def test_w8a8_takes_sums_and_scales_of_the_right_shape_alone(device):
    codes = whole(-128, 127, 6, 64).to(torch.int8)
    given = {
        "x": codes[:4].view(2, 2, 64).to(device),
        "weight": codes.to(device),
        "x_scale": torch.ones((), device=device),
        "weight_scale": torch.ones(6, device=device),
        "zero_point": 3,
    }
    wanted = linear_kernels.linear_w8a8(**given)
    sums = codes.sum(1, dtype=torch.int32).to(device)
    strided = sums.repeat_interleave(2)[::2]
    assert torch.equal(linear_kernels.linear_w8a8(**given, code_sums=strided), wanted)
    for wrong, message in ((sums.float(), "code_sums is float32"), (sums[:5], "code_sums has")):
        with pytest.raises(KernelError, match=message):
            linear_kernels.linear_w8a8(**given, code_sums=wrong)
    x_scale = torch.ones(4, 1, 1, device=device)
    with pytest.raises(KernelError, match=r"x_scale has shape \(4, 1, 1\)"):
        linear_kernels.linear_w8a8(**given | {"x_scale": x_scale})


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
        found = linear_kernels.linear_w4a16(
            x.to(device),
            linear_kernels.pack_codes(codes).to(device),
            scale.to(device),
            None if zero is None else zero.to(device),
            group=group,
            bias=bias.to(device),
        )
        assert found.dtype == dtype
        assert ((found.cpu().double() - exact).abs() <= bound).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rounding_kernels.quantize(x.double(), x[0, 0], low=0, high=9), "float64"),
        (lambda x: rounding_kernels.quantize(x, x, low=0, high=9), "scale has shape"),
        (lambda x: rounding_kernels.quantize(x, x[0, 0], low=0, high=999), "8-bit"),
        (lambda x: rounding_kernels.quantize(x, x[0, 0], low=0, high=9, out=x), "out is float32"),
        (lambda x: rounding_kernels.fake_quantize_dynamic(x, bits=9), "9 bits"),
        (lambda x: rounding_kernels.fake_quantize_dynamic(x, bits=8, group=0), "not positive"),
        (lambda x: hadamard_kernel.hadamard(normal(2, 20)), "size 20"),
        (lambda x: hadamard_kernel.hadamard(normal(2, 12)), "without a base"),
        (lambda x: linear_kernels.linear_w8a8(x, x, x_scale=x, weight_scale=x), "float32"),
        (
            lambda x: linear_kernels.linear_w4a16(
                x, torch.zeros(3, 32, dtype=torch.uint8), torch.ones(3, 1), group=48
            ),
            "group size 48 for K = 64",
        ),
        (lambda x: linear_kernels.pack_codes(torch.zeros(2, 3)), "shape"),
        (lambda x: linear_kernels.pack_codes(torch.full((2, 2), 16)), "16"),
    ],
)
def test_bad_input_is_refused_and_named(call, message):
    with pytest.raises(KernelError, match=message):
        call(normal(4, 64))


SQUARE = {"x_scale": torch.ones(64, 1), "weight_scale": torch.ones(64), "dtype": torch.float32}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: rounding_kernels.fake_quantize_dynamic(
                m[:64], bits=8, out=m[:1].expand(64, 64)
            ),
            r"rows of out share memory: strides \(0, 1\)",
        ),
        (
            lambda m: rounding_kernels.fake_quantize_dynamic(m[:64], bits=8, out=m[1:65]),
            "out shares memory with an input, but is not the same tensor as x",
        ),
        (
            lambda m: rounding_kernels.fake_quantize(
                m[:64], m[:64, :1], low=-8, high=7, out=m[32:96]
            ),
            "out shares memory with an input",
        ),
        (
            lambda m: rounding_kernels.fake_quantize(
                m[64:], m[0, 0], low=-8, high=7, out=m[:64].T.T
            ),
            "out shares memory with an input",  # the scale is one of its elements
        ),
        (
            lambda m: linear_kernels.linear_w8a8(
                m.view(torch.int8)[:64, :64],
                m.view(torch.int8)[:64, 64:128],
                **SQUARE,
                out=m[:64],
            ),
            "out shares memory with an input",
        ),
    ],
)
def test_an_output_that_shares_memory_is_refused(call, message):
    with pytest.raises(KernelError, match=message):
        call(torch.zeros(128, 64))


def test_an_output_may_be_x_itself_or_columns_beside_it(device):
    x = normal(33, 64).to(device)
    wide = torch.cat([x, x], 1)
    for call in (
        partial(rounding_kernels.fake_quantize_dynamic, bits=8),
        partial(rounding_kernels.fake_quantize_dynamic, bits=4, group=7),
        partial(
            rounding_kernels.fake_quantize,
            scale=torch.full((33, 1), 0.1).to(device),
            low=-8,
            high=7,
        ),
        hadamard_kernel.hadamard,
    ):
        wanted = call(x)
        mine = x.clone()
        assert call(mine, out=mine) is mine
        assert torch.equal(mine, wanted)
        beside = wide.clone()
        call(beside[:, :64], out=beside[:, 64:])
        assert torch.equal(beside, torch.cat([x, wanted], 1))


def test_more_programs_than_a_gpu_launches_are_refused():
    launch = Launch(None, 2**31, {})
    with pytest.raises(KernelError, match=r"2,147,483,648 programs"):
        run([launch], torch.device("cpu"))


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(devices, "capability", lambda device: (7, 5))
    assert "7.5, the kernel needs 8.0" in devices.unusable(torch.device("cuda"))


def test_without_gpu_and_interpreter_a_kernel_says_what_it_needs():
    code = (
        "import torch; from clipq.kernels import rounding_kernels\n"
        "rounding_kernels.fake_quantize_dynamic(torch.ones(2, 2), bits=8)"
    )
    done = run_compiled(code)
    assert "TRITON_INTERPRET=1" in done.stderr
    assert "KernelError" in done.stderr


def test_the_interpreter_takes_over_where_triton_was_imported_before():
    code = (
        "import torch, triton, triton.language as tl\n"
        "from clipq.kernels.device import use_interpreter\n"
        "use_interpreter()\n"
        "from clipq.kernels.linear_kernels import linear_w8a8\n"
        "codes, one = torch.full((2, 3), 5, dtype=torch.int8), torch.ones(())\n"
        "print(linear_w8a8(codes, codes, x_scale=one, weight_scale=one).tolist())\n"
        "from clipq.kernels.rounding_kernels import fake_quantize_dynamic\n"
        "print(fake_quantize_dynamic(torch.tensor([[0.0, 127.4]]), bits=8).tolist())\n"
    )
    done = run_compiled(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[[75.0, 75.0], [75.0, 75.0]]"


@pytest.mark.parametrize("module", ["linear_kernels", "hadamard_kernel", "rounding_kernels"])
def test_programs_that_were_loaded_for_a_gpu_are_not_interpreted(module):
    code = (
        f"import clipq.kernels.{module}\n"
        "from clipq.errors import KernelError\n"
        "from clipq.kernels.device import use_interpreter\n"
        "try:\n"
        "    use_interpreter()\n"
        "except KernelError as error:\n"
        "    print(error)\n"
    )
    done = run_compiled(code)
    assert "loaded for a GPU before" in done.stdout, done.stderr


@pytest.mark.parametrize("granularity", ["row", "group"])
def test_scales_may_be_a_part_of_something_wider(granularity, device):
    x = normal(6, 64)
    count = 1 if granularity == "row" else 2
    scale = (normal(6, count + 3, seed=1).abs() + 0.1)[:, :count]
    group = None if granularity == "row" else 32
    found = rounding_kernels.fake_quantize(
        x.to(device), scale.to(device), low=-8, high=7, group=group
    )
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
