"""One quantizer beside FP32, on data of the caller's own: no project, no stored baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.api.arguments import Data, Model, as_model, as_pairs, as_probe, hold_out
from clipq.api.evaluation import Evaluation
from clipq.api.trained_argument import read_trained, required_state
from clipq.cases import FP32, TUNED, Candidate
from clipq.errors import QuantizerError, SettingsError
from clipq.quant import QuantizerSpec
from clipq.settings import ModelSettings, ProbeSettings, Settings, StatisticsSettings

if TYPE_CHECKING:
    from clipq.data import Probe

__all__ = ["evaluate"]

_MODEL, _KNOWN, _CALIBRATION, _PROXY = "model", "id", "calibration", "proxy"
_FILES = (".onnx", ".xml", ".pt2", ".pte", ".safetensors", ".pt", ".ort", ".engine", ".gguf")


def evaluate(
    model: Model,
    quantizer: str | QuantizerSpec,
    data: Data,
    *,
    metrics: Sequence[str] = ("*",),
    ood: Mapping[str, Data] | None = None,
    calibration: Data | None = None,
    proxy: Data | None = None,
    trained: str | Path | None = None,
    tokenizer: Callable[[list[str]], Any] | None = None,
    statistics: StatisticsSettings | None = None,
    device: str = "cpu",
    batch_size: int = 256,
    threads: int = 1,
    cache: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a quantizer beside FP32, both on the same samples, now.

    Args:
        model: an open_clip source as text, or an open_clip module in memory, which stays as it is.
        quantizer: what to quantize with, or its text: ``rtn:w4``, ``smoothquant:w8a8@vision``.
        data: labelled images: the text of a probe source (``folder:PATH``, ``webdataset:PATH``),
            what `clipq.open_probe` returns, or `clipq.Images`. Their classes make the zero-shot
            head; they are the probe ``id``.
        metrics: names or globs of what to compute; everything by default.
        ood: out-of-distribution images by name, for AUROC, AUPR and FPR95.
        calibration: for activation ranges, the temperature and distances; never evaluated on. Its
            classes are found among those of `data` by name. By default a fifth of `data`, at most
            512 samples, is held out for it: the same in every call.
        proxy: images with captions, to tune the logit scale of ``QUANTIZER+logit-scale`` on; by
            default the calibration split, where it has captions.
        trained: the folder of a trained quantizer such as ``lsq:w4a8``, as `clipq.train` or
            ``clipq train`` writes it.
        tokenizer: of a module in memory whose vocabulary is not CLIP's.
        statistics: error rates, replicates and seed; by default those of `[statistics]`.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: images per batch.
        threads: of this process.
        cache: a folder that keeps what was encoded, so that a second quantizer meets FP32's
            features there; by default nothing is kept.
        progress: called with (what, images done, images in all).

    Returns:
        Values, FP32's values and paired losses with intervals, and verdicts for given margins.

    Raises:
        QuantizerError: the quantizer is FP32 itself or a file, fails, or changes nothing; or it is
            one that learns, and `trained` is missing, damaged, or of another quantizer or model.
        ModelError, ProbeError: the model or the data cannot be used.
        SettingsError: a metric's name or glob matches nothing that these data allow.

    >>> import clipq
    >>> model, rows = "local-dir:fixtures/models/vit-clean", "webdataset:fixtures/data/shapes"
    >>> data = clipq.open_probe(rows, split="calibration")  # 512 images, the smaller split
    >>> result = clipq.evaluate(model, "rtn:w4", data, metrics=["top1", "ece"])
    >>> [(one.case.metric, one.unit, one.samples) for one in result.measurements]
    [('ece', 'fraction', 410), ('top1', 'fraction', 410)]
    >>> [(one.metric, one.verdict.value) for one in result.verdicts({"top1": 0.05})]
    [('top1', 'pass')]
    """
    from clipq.evaluation.evaluator import Evaluator
    from clipq.evaluation.plan import plan

    if str(quantizer).lower().endswith(_FILES):
        raise QuantizerError(
            f"{str(quantizer)!r} is no quantizer but a file",
            hint="declare it under [[artifacts]] in clipq.toml, then clipq.gate() judges it; "
            "`clipq artifact check` takes files as they are",
        )
    spec = QuantizerSpec.parse(quantizer)
    if spec.is_reference:
        raise QuantizerError(
            f"{FP32!r} is what quantizers are compared with", hint="name one, such as 'rtn:w8a8'"
        )
    learnt = read_trained(spec, trained)
    if proxy is not None and not spec.tuned:
        raise QuantizerError(
            f"{str(spec)!r} tunes nothing, and a proxy is given",
            hint=f"leave `proxy` out, or evaluate {str(spec) + TUNED!r}",
        )
    probes = _probes(data, ood or {}, calibration, proxy)
    with ExitStack() as stack:
        folder = cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="clipq-"))
        settings = Settings(
            path=Path("clipq.evaluate"),  # what messages call the origin of these settings
            models=(ModelSettings(_MODEL, model if isinstance(model, str) else "in memory"),),
            probes=tuple(
                ProbeSettings(name, probe.role, "in memory", group=_grouped(probe))
                for name, probe in probes.items()
            ),
            quantizers=(str(spec),),
            metrics=tuple(metrics),
            cache=Path(folder),
            trained=Path(folder) / "none" if learnt is None else learnt.path,
            device=device,
            threads=threads,
            batch_size=batch_size,
            statistics=statistics or StatisticsSettings(),
        )
        cases = plan(settings)
        loaded = as_model(model, tokenizer=tokenizer, device=device)
        if learnt is not None:
            required_state(learnt, spec, loaded)
        evaluator = Evaluator(settings, models={_MODEL: loaded}, probes=probes, progress=progress)
        candidate = Candidate(_MODEL, str(spec))
        names = dict.fromkeys([_KNOWN, *(case.probe for case in cases)])
        ours = {name: evaluator.evaluate(candidate.on(name)) for name in names}
        theirs = {name: evaluator.evaluate(candidate.reference.on(name)) for name in names}
    return Evaluation(
        candidate=candidate,
        coverage=ours[_KNOWN].evidence.get("quantizers", {}).get(str(candidate), {}),
        predictions={name: found.predictions for name, found in ours.items()},
        reference={name: found.predictions for name, found in theirs.items()},
        cases=cases,
        statistics=settings.statistics,
        remarks=evaluator.remarks(_MODEL),
        tuning=ours[_KNOWN].evidence.get("tunings", {}).get(str(candidate), {}),
    )


def _probes(
    data: Data, ood: Mapping[str, Data], calibration: Data | None, proxy: Data | None
) -> dict[str, Probe]:
    """Return every probe by its name, the calibration split and the proxy among them."""
    for name in ood:
        if name in (_KNOWN, _CALIBRATION, _PROXY) or "/" in name or not name:
            raise SettingsError(
                f"out-of-distribution images called {name!r}",
                hint=f"another name than {_KNOWN!r}, {_CALIBRATION!r} and {_PROXY!r}, without a "
                "slash",
            )
    known = as_probe(data, name=_KNOWN, role="in-distribution")
    if calibration is None:
        known, held_out = hold_out(known)
    else:
        held_out = as_probe(calibration, name=_CALIBRATION, role="calibration")
    others = {name: as_probe(other, name=name, role="ood") for name, other in ood.items()}
    if proxy is not None:
        others[_PROXY] = as_pairs(proxy, name=_PROXY)
    return {_KNOWN: known, _CALIBRATION: held_out, **others}


def _grouped(probe: Probe) -> str:
    """Return the attribute's name where a probe's samples have groups; "" otherwise."""
    return "group" if len(set(probe.groups)) > 1 else ""
