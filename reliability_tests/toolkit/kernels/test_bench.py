"""The benchmark measures every kernel; here at sizes that the interpreter can bear."""

from __future__ import annotations

import pytest
import torch

from clipq.cli import main
from clipq.cli.kernels import bench_table
from clipq.kernels.bench import Bench, Sizes, bench

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
SMALL = Sizes(tokens=32, width=64, hidden=256, few=(1,), mebibytes=(1,))


def test_every_kernel_is_measured_beside_its_ceiling(device):
    found = list(bench(torch.device(device), SMALL))
    assert {row.kernel for row in found} == {
        "quantize",
        "fake-quantize",
        "fake-quantize-dynamic",
        "quantize-layer-norm",
        "hadamard",
        "linear-w8a8",
        "linear-w4a16",
    }
    assert all(row.seconds > 0 and row.ceiling_seconds > 0 and row.moved > 0 for row in found)
    assert all(bool(row.rival) == (row.rival_seconds > 0) for row in found)
    (rounded,) = (r for r in found if r.kernel == "fake-quantize" and "tensor" in r.case)
    assert rounded.moved == 2 * 2**20
    products = [row.operations for row in found if row.kernel == "linear-w8a8"]
    assert products == [2 * 32 * 64 * 192, 2 * 32 * 64 * 256, 2 * 32 * 256 * 64]


def test_the_table_shows_rates_and_shares():
    row = Bench("k", "c", 2e-3, 4e-5, 10**9, 4 * 10**12, "torch._int_mm", 1e-3, "torch", 6e-3)
    text = bench_table([row])
    for wanted in ("2.000", "40", "500", "2,000.0", "0.50 of torch._int_mm", "3.00 x torch"):
        assert wanted in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys):
    assert main(["kernels", "bench"]) == 2
    assert "there is no GPU" in capsys.readouterr().err
