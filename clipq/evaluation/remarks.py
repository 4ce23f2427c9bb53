"""What a reader should know of a model's inputs beside its numbers, as sentences.

None of it is an error: numbers are what they claim to be. They may not be what was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipq.evaluation.inputs import Inputs, caption_lines
from clipq.evaluation.known_labels import calibration_remarks

if TYPE_CHECKING:
    from clipq.models import LoadedModel

__all__ = ["input_remarks"]


def input_remarks(loaded: LoadedModel, inputs: Inputs) -> tuple[str, ...]:
    """Return what is odd about what a model is shown.

    Classes that no calibration sample shows, classes with the same tokens, and prompts and captions
    of which the end is cut off.

    Args:
        loaded: the model, whose tokenizer decides.
        inputs: the probes.
    """
    from clipq.models.prompt_check import caption_remarks, prompt_remarks

    known = inputs.known
    found = calibration_remarks(inputs.known_labels, known.classnames)
    found += prompt_remarks(loaded.tokenizer, known.classnames, known.templates)
    for probe in inputs.probes.values():
        if probe.role == "retrieval" and probe.captions is not None:
            lines, _ = caption_lines(probe.captions)
            found += caption_remarks(loaded.tokenizer, probe.name, lines)
    return tuple(found)
