"""The CUDA C++ kernels compile, link, load and register; numbers need a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from clipq.errors import KernelError
from clipq.kernels.native import build
from clipq.testing import NotRun, check_kernel


@pytest.fixture
def toolkit():
    try:
        return build.cuda_home()
    except KernelError as error:
        pytest.skip(f"CUDA C++: {error.problem}")


def test_they_build_for_every_gpu_and_torch_knows_them(toolkit, tmp_path):
    code = (
        "import torch\n"
        "from clipq.cli import main\n"
        "assert main(['kernels', 'build']) == 0\n"
        "from clipq.kernels.native.build import load_native\n"
        "assert load_native().name == 'clipq_native.so'\n"
        "x, scale = torch.ones(2, 3, device='meta'), torch.ones((), device='meta')\n"
        "ops = torch.ops.clipq_native\n"
        "assert ops.quantize(x, scale, None, 0, 255).dtype == torch.uint8\n"
        "assert ops.fake_quantize(x, scale, None, -8, 7).dtype == torch.float32\n"
        "assert ops.fake_quantize_dynamic(x.half(), 8).dtype == torch.float16\n"
        # The checks of its CUDA functions come before any launch: they refuse on a CPU as well.
        "x, one = torch.ones(4, 64), torch.ones(4, 1)\n"
        "good = dict(x=x, scale=one, zero_point=None, low=-8, high=7)\n"
        "for wrong in (dict(x=x.double()), dict(scale=one.double()), dict(scale=torch.ones(65)),\n"
        "              dict(x=x[0, 0]), dict(scale=one.to('meta')), dict(low=-300, high=300),\n"
        "              dict(zero_point=torch.zeros(3, 7)), dict(group=0)):\n"
        "    try:\n"
        "        call = ops.fake_quantize.default._op_dk\n"
        "        call(torch._C.DispatchKey.CUDA, **good | wrong)\n"
        "    except RuntimeError as error:\n"
        "        print('refused:', error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment | {"TORCH_EXTENSIONS_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "linked and loaded" in done.stdout
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert done.stdout.count(architecture) == 12  # 3 types x (2 codes, values, dynamic)
    spilled = [line.split()[-3] for line in done.stdout.splitlines() if " sm_" in line]
    assert set(spilled) == {"0"}
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 8
    assert "refused: zero point has shape [3, 7]; allowed: [4, 1] or one value" in refused


def test_the_toolkit_is_a_folder_with_headers(toolkit, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert build.cuda_home() == toolkit
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime.h").touch()
    assert build.cuda_home() == tmp_path


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the checks run")
def test_without_a_gpu_every_check_says_that_it_did_not_run():
    for check in check_kernel("native-fake-quantize"):
        with pytest.raises(NotRun):
            check()
