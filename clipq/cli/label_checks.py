"""What `clipq probe check` says of labels, prompts and captions."""

from __future__ import annotations

from collections.abc import Iterable

from clipq.cli.checked_probe import Checked
from clipq.data.probe import CAPTIONED
from clipq.errors import ClipqError
from clipq.evaluation.inputs import caption_lines
from clipq.evaluation.known_labels import calibration_remarks, known_labels
from clipq.settings import ModelSettings

__all__ = ["missing_classes", "odd_texts"]


def missing_classes(checked: Checked) -> list[str]:
    """Return that the calibration split shows no sample of some classes, where it does not."""
    if checked.probe.role != "calibration" or checked.known is None:
        return []
    found = known_labels(checked.probe, checked.known)
    return calibration_remarks(found, checked.known.classnames)


def odd_texts(checked: Checked, model: ModelSettings) -> Iterable[str]:
    """Return what a model's tokenizer makes of prompts or captions that a reader should know of."""
    from clipq.models import ModelSource
    from clipq.models.loading import load_tokenizer
    from clipq.models.prompt_check import caption_remarks, prompt_remarks

    probe = checked.probe
    try:
        tokenizer = load_tokenizer(ModelSource.parse(model.source, base_dir=checked.settings.root))
    except ClipqError as error:
        return [f"prompts were not checked with {model.name}: {error.problem}"]
    if probe.role in CAPTIONED:
        lines, _ = caption_lines(probe.captions or ())
        found = caption_remarks(tokenizer, probe.name, lines)
    else:
        found = prompt_remarks(tokenizer, probe.classnames, probe.templates)
    return [f"{model.name}: {remark}" for remark in found]
