"""What a quantizer does to the process stays with it: it is undone, named, and nothing is kept."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import clipq
from clipq.cases import Cell
from clipq.errors import ClipqError, QuantizerError, SettingsError
from clipq.evaluation import attack, encoders
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.isolation import Process, ProcessChangedError, import_contained
from clipq.evaluation.plan import load_plugins
from clipq.evaluation.tables import table_digest
from clipq.quant import grids, quantizers
from clipq.quant.explicit import make_explicit
from clipq.quant.surgery import plain_layers
from clipq.settings import AttackSettings, Settings, load_settings


class Leaning(TorchFunctionMode):
    """Turns every rounding into nothing."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function is torch.Tensor.round else function(*args, **(kwargs or {}))


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def same(values: Any, *_: Any, **__: Any) -> Any:
    return values


def other_kernel() -> None:
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl("round", torch.clone, "CPU")
    HELD.append(library)


def another_code() -> None:
    grids.fake_quantize.__code__ = same.__code__


HELD: list[Any] = []
HARM: dict[str, Callable[[], object]] = {
    "Tensor.round": lambda: setattr(torch.Tensor, "round", same),
    "nn.functional.linear": lambda: setattr(functional, "linear", lambda x, *_: x),
    "torch.matmul was removed": lambda: delattr(torch, "matmul"),
    "QuickGELU.forward": lambda: setattr(open_clip.transformer.QuickGELU, "forward", same),
    "Module.__call__": lambda: setattr(nn.Module, "__call__", same),
    "numpy.clip": lambda: setattr(np, "clip", same),
    "grids.round": lambda: setattr(grids, "round", same),
    "code of clipq.quant.grids.fake_quantize": another_code,
    "registered quantizer.gptq": lambda: quantizers._objects.update(gptq=same),
    "attack._STEP": lambda: setattr(attack, "_STEP", 0.0),
    "kernel of aten/round": other_kernel,
    "forward_hooks": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "float32_matmul_precision() is medium": lambda: torch.set_float32_matmul_precision("medium"),
    "default_dtype() is torch.bfloat16": lambda: torch.set_default_dtype(torch.bfloat16),
    "mkldnn.enabled is False": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "FP32 precision of mkldnn, conv": lambda: setattr(
        torch.backends.mkldnn.conv, "fp32_precision", "bf16"
    ),
    "num_threads() is 3": lambda: torch.set_num_threads(3),
    "set_default_device() is meta": lambda: torch.set_default_device("meta"),
    "hooks of saved tensors": lambda: torch._C._autograd._push_saved_tensors_default_hooks(
        same, same
    ),
    "torch function modes": lambda: Leaning().__enter__(),
    "torch dispatch modes": lambda: Watching().__enter__(),
    "autocast on cpu": lambda: torch.autocast("cpu").__enter__(),
    "is_inference_mode_enabled() is True": lambda: HELD.append(torch._C._InferenceMode(True)),
    "is_grad_enabled() is False": lambda: torch.set_grad_enabled(False),
    "denormal": lambda: torch.set_flush_denormal(True),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "flash_sdp": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "engine": lambda: setattr(torch.backends.quantized, "engine", "qnnpack"),
    "geterr": lambda: np.seterr(all="raise"),
    "working directory": lambda: os.chdir("/"),
    "variable ONEDNN_VERBOSE was set": lambda: os.environ.update(ONEDNN_VERBOSE="0"),
    "variable PATH was changed": lambda: os.environ.update(PATH=""),
}


@pytest.mark.parametrize("named", HARM)
def test_a_change_of_the_process_is_undone_and_named(named, process):
    names, settings = seen()
    contained = process.contained("mine:w8", "being made", lambda: "")
    with (
        pytest.raises(ProcessChangedError, match="quantizer 'mine:w8' changed") as found,
        contained,
    ):
        HARM[named]()
    assert named in str(found.value)
    assert (names, settings) == seen()
    with process.contained("mine:w8", "being made", lambda: ""):
        pass  # nothing is left to be found


def seen() -> tuple[list[Any], list[Any]]:
    """Some of what is watched, by other means: what is computed, and what torch says."""
    numbers = torch.tensor([0.4, 1.5, 2.6])
    computed = [
        numbers.round().tolist(),
        functional.linear(numbers, torch.ones(2, 3)).tolist(),
        torch.matmul(numbers, numbers).item(),
        nn.Linear(3, 2)(numbers).shape,
        np.clip(2, 0, 1).item(),
        str(numbers.device),
    ]
    said = [
        torch.get_num_threads(),
        torch.__config__.show(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        dict(os.environ),
        Path.cwd(),
        quantizers.get("gptq"),
    ]
    return computed, said


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """Stands for this process, so that what spoils it here is forgotten."""
    made = Process()
    monkeypatch.setattr(encoders, "PROCESS", made)
    yield made
    HELD.clear()


def test_what_libraries_do_lazily_is_no_harm(process, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "late.py").write_text("VALUE = 1")
    with process.contained("mine:w8", "being made", lambda: ""):
        import late  # noqa: F401

        layers = nn.Sequential(nn.Linear(4, 4), nn.GELU())
        torch.jit.trace(layers, torch.ones(2, 4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
        torch.Tensor.of_mine = same
        torch.manual_seed(3)
    del torch.Tensor.of_mine


def test_what_changes_between_two_steps_of_a_quantizer_is_not_its_doing(process, monkeypatch):
    with process.contained("mine:w8", "being made", lambda: ""):
        pass
    monkeypatch.setattr(torch, "compile", same)  # as a library does that a probe imports
    with process.contained("mine:w8", "encoding", lambda: ""):
        pass
    assert torch.compile is same


def test_random_numbers_depend_on_the_quantizer_alone(process):
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        with process.contained("mine:w8", "being made", lambda: ""):
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert drawn[0] == drawn[1]


def test_an_error_and_a_change_are_both_told(process):
    contained = process.contained("mine:w8", "being made", lambda: "")
    with pytest.raises(ProcessChangedError) as found, contained:  # noqa: PT012
        HARM["Tensor.round"]()
        raise RuntimeError("no kernel image")
    assert isinstance(found.value.__context__, RuntimeError)


def test_of_what_is_contained_as_a_whole_nothing_is_looked_at_before_its_end(process):
    asked, answers = [], iter(["", "", "its features"])

    def differs() -> str:
        asked.append("differs")
        return next(answers)

    def encodes() -> None:
        for probe in ("id", "digits"):
            with process.contained("mine:w8", f"encoding {probe}", differs):
                HARM["Tensor.round"]()
        assert not asked

    whole = process.contained("mine:w8", "encoding", differs, whole=True)
    with pytest.raises(ProcessChangedError, match=r"while encoding: .*Tensor\.round"), whole:
        encodes()
    assert asked == ["differs"]

    drawn = []
    for outer in (False, True):
        kept_for = process.contained("mine:w8", "encoding", differs, whole=True)
        with kept_for if outer else nullcontext():  # noqa: SIM117
            with process.contained("mine:w8", "encoding id", lambda: ""):
                drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]  # as in a gate, which looks at each

    for _ in range(2):  # once nothing can be trusted, nothing begins
        with (
            pytest.raises(
                ProcessChangedError, match=r"its features changed|measured in this process"
            ),
            process.contained("mine:w8", "encoding", differs, whole=True),
        ):
            pass


# -- in an evaluator, whose cache others read ------------------------------------------------------


@pytest.fixture
def settings(project, tmp_path) -> Settings:
    """Few samples and a cache of its own."""
    whole = load_settings(project.settings())
    few = tuple(replace(probe, samples=64, group="") for probe in whole.probes)
    return replace(whole, probes=few, cache=tmp_path / "cache")


@pytest.fixture
def registered() -> Iterator[Callable[..., str]]:
    """Registers a quantizer of 8-bit weights that also does something when it is made or runs."""
    names: list[str] = []

    def register(
        *,
        made: Callable[[], object] = lambda: None,
        runs: Callable[[], object] = lambda: None,
        encode: Callable[..., torch.Tensor] = lambda original, images: original(images),
    ) -> str:
        def method(model, spec, calibration):
            make_explicit(model, "both")
            for layer in plain_layers(model, "both").values():
                rows = layer.weight.data.flatten(1)
                step = rows.abs().amax(1, keepdim=True) / 127
                layer.weight.data = ((rows / step).round() * step).view_as(layer.weight)
            made()
            original = model.encode_image

            def encode_image(images, normalize=False):
                if len(images) > 1:  # one is encoded to count operations, as part of being made
                    runs()
                return encode(original, images)

            model.encode_image = encode_image
            return model

        names.append(f"of-test-{len(names)}")
        clipq.quantizers.register(names[-1])(method)
        return f"{names[-1]}:w8"

    yield register
    for name in names:
        clipq.quantizers.remove(name)


def tables(evaluator: Evaluator, *cells: str) -> dict[str, str]:
    return {
        cell: table_digest(dict(evaluator.evaluate(Cell.parse(cell)).predictions.columns))
        for cell in cells
    }


def kept(settings: Settings) -> set[Path]:
    found = settings.cache.rglob("*.safetensors")
    return {path.relative_to(settings.cache) for path in found}


def test_no_quantizer_moves_the_tables_of_another(settings, registered, process, tmp_path):
    cells = (
        "vit-clean/rtn:w8/digits",
        "vit-clean/rtn:w2/digits",
        "vit-clean/fp32/digits",
    )
    clean = replace(settings, cache=tmp_path / "clean")
    expected = tables(Evaluator(clean), *cells)
    evaluator = Evaluator(settings)
    tables(evaluator, cells[0])
    harm = (
        "Tensor.round",
        "float32_matmul_precision() is medium",
        "default_dtype() is torch.bfloat16",
        "mkldnn.enabled is False",
        "torch function modes",
        "forward_hooks",
        "variable ONEDNN_VERBOSE was set",
    )
    for named in harm:
        for when in ("made", "runs"):
            culprit = registered(**{when: HARM[named]})
            for probe in ("digits", "id"):
                with pytest.raises(ProcessChangedError, match=culprit) as found:
                    evaluator.evaluate(Cell("vit-clean", culprit, probe))
                assert named in str(found.value)
    assert tables(evaluator, *cells) == expected
    assert kept(settings) == kept(clean)


def test_what_the_process_was_set_to_before_is_part_of_every_key(settings):
    plain = Evaluator(settings).encoders.environment
    torch.set_float32_matmul_precision("medium")
    try:
        other = Evaluator(settings).encoders.environment
    finally:
        torch.set_float32_matmul_precision("highest")
    assert other == plain | {"torch.get_float32_matmul_precision()": "medium"}


def test_where_fp32_itself_moved_nothing_is_measured_any_more(settings, registered, process):
    evaluator = Evaluator(settings)
    fp32 = evaluator.encoders.model("vit-clean").model
    proj = fp32.visual.proj.data
    culprit = registered(runs=lambda: proj.mul_(1.001))
    tables(evaluator, "vit-clean/rtn:w8/digits")
    before = kept(settings)
    with pytest.raises(ClipqError, match=f"{culprit}.*image in FP32 changed"):
        evaluator.evaluate(Cell("vit-clean", culprit, "digits"))
    for later in ("fp32", "rtn:w8", "rtn:w2", culprit):
        for other in (evaluator, Evaluator(settings)):
            with pytest.raises(ProcessChangedError, match=culprit):
                other.evaluate(Cell("vit-clean", later, "digits"))
    added = {path.parts[0] for path in kept(settings) - before}
    assert "predictions" not in added
    assert added <= {"head", "features"}  # made of the culprit before it moved anything
    assert len(kept(settings) - before) <= 1


def test_images_made_against_fp32_are_made_by_nobody_else(settings, registered, process, tmp_path):
    attacked = adversarial(settings, samples=160, against="fp32")  # more than a chunk of them
    clean = replace(attacked, cache=tmp_path / "clean")
    expected = tables(Evaluator(clean), "vit-clean/rtn:w8/attacked")
    evaluator = Evaluator(attacked)
    culprit = registered(runs=HARM["nn.functional.linear"])
    with pytest.raises(ProcessChangedError, match="linear was replaced"):
        evaluator.evaluate(Cell("vit-clean", culprit, "attacked"))
    assert tables(evaluator, "vit-clean/rtn:w8/attacked") == expected
    assert kept(attacked) == kept(clean)


# -- plug-ins ------------------------------------------------------------------------------------


def test_a_plugin_that_changes_the_process_as_it_is_imported_is_refused(
    settings, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "patching.py").write_text(
        "import torch\ntorch.Tensor.round = lambda values: values\n"
        "torch.set_float32_matmul_precision('medium')\n"
    )
    with pytest.raises(SettingsError, match=r"'patching'.*Tensor.round was replaced.*medium"):
        load_plugins(replace(settings, plugins=("patching",)))
    assert torch.tensor(1.4).round() == 1.0
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_libraries_do_as_they_are_imported_is_not_what_a_plugin_does(tmp_path):
    (tmp_path / "honest.py").write_text(
        "import torch\nimport clipq\nimport torch._dynamo\nimport torch.distributed.tensor\n"
        "import sklearn.metrics\nfrom clipq.quant import quantizers\n"
    )
    (tmp_path / "patching.py").write_text(
        "import torch\ntorch.Tensor.round = lambda values: values\nimport torch.onnx\n"
    )
    code = (
        "import sys; from clipq.evaluation.isolation import import_contained\n"
        "assert 'torch' not in sys.modules\n"
        "import_contained('honest')\n"
        "try: import_contained('patching')\n"
        "except Exception as error: print(error)\n"
        "import torch; print(torch.tensor(1.4).round().item())"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(clipq.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert "torch.Tensor.round was replaced" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "1.0"


def test_a_plugin_may_add_what_it_likes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "adding.py").write_text(
        "import clipq\n"
        "@clipq.quantizers.register('of-adding')\n"
        "def method(model, spec, calibration): return model\n"
    )
    import_contained("adding")
    assert "of-adding" in clipq.quantizers
    clipq.quantizers.remove("of-adding")


# -- one failure, one verdict ---------------------------------------------------------------------


def adversarial(settings: Settings, *, samples: int = 64, against: str = "itself") -> Settings:
    """Return settings with a probe that is attacked."""
    fgsm = AttackSettings("fgsm", 1.0, against=against)
    known = settings.in_distribution
    shown = replace(known, name="attacked", role="adversarial", group="", attack=fgsm)
    return replace(settings, probes=(*settings.probes, replace(shown, samples=samples)))


def test_a_probe_that_fails_fails_alone(settings, registered, process):
    fused = registered(encode=lambda original, images: original(images.detach()).detach())
    evaluator = Evaluator(adversarial(settings))
    for _ in range(2):
        with pytest.raises(QuantizerError, match="no gradient goes through"):
            evaluator.evaluate(Cell("vit-clean", fused, "attacked"))
        evaluator.evaluate(Cell("vit-clean", fused, "digits"))


def test_a_missing_extra_fails_what_needs_it_alone(settings, monkeypatch, process):
    evaluator = Evaluator(adversarial(settings))
    monkeypatch.setitem(sys.modules, "art.attacks", None)
    with pytest.raises(ClipqError, match="Adversarial Robustness Toolbox"):
        evaluator.evaluate(Cell("vit-clean", "rtn:w8", "attacked"))
    evaluator.evaluate(Cell("vit-clean", "rtn:w8", "digits"))


def test_what_cannot_be_made_fails_once_for_all_probes(settings, registered, process):
    made: list[int] = []

    def fail() -> None:
        made.append(1)
        raise RuntimeError("no kernel image")

    culprit, evaluator = registered(made=fail), Evaluator(settings)
    for probe in ("digits", "id"):
        with pytest.raises(QuantizerError, match="no kernel image"):
            evaluator.evaluate(Cell("vit-clean", culprit, probe))
    assert made == [1]
