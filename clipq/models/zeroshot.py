"""The zero-shot head: class names and prompt templates through the text tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from clipq.errors import ProbeError
from clipq.models.loading import Tokenizer

__all__ = ["class_embeddings", "prompt_tokens"]


def prompt_tokens(
    tokenizer: Tokenizer, classnames: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """Return the tokens (C * T, L) of every template filled with every class name.

    Raises:
        ProbeError: there is no class or no template, or a template has no place ``{c}`` for the
            class name.

    >>> lines = []
    >>> tokens = prompt_tokens(lines.extend, ["cat", "dog"], ["a {c}.", "two {c}s."])
    >>> lines
    ['a cat.', 'two cats.', 'a dog.', 'two dogs.']
    """
    if not classnames or not templates:
        raise ProbeError(
            f"{len(classnames)} class names and {len(templates)} templates make no prompts",
            hint="a zero-shot head needs at least one of each",
        )
    for template in templates:
        if "{c}" not in template:
            raise ProbeError(
                f"prompt template {template!r} has no place for the class name",
                hint="write {c} where the class name goes",
            )
    return tokenizer([t.replace("{c}", name) for name in classnames for t in templates])


def class_embeddings(
    model: nn.Module,
    tokenizer: Tokenizer,
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    batch_size: int = 256,
    device: str = "cpu",
) -> torch.Tensor:
    """Return class embeddings (C, D) of unit length.

    Prompt ensembling as in Radford et al. 2021: the mean over templates of unit-length text
    features, normalised again. Classes with the same tokens have exactly the same embedding.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> def tokenizer(texts):
    ...     return torch.tensor([[1 + len(text)] * 12 for text in texts])
    >>> found = class_embeddings(small_clip(), tokenizer, ["cat", "horse"], ["a {c}.", "one {c}."])
    >>> tuple(found.shape), [round(length, 6) for length in found.norm(dim=1).tolist()]
    ((2, 24), [1.0, 1.0])
    """
    tokens = prompt_tokens(tokenizer, classnames, templates)
    # Each prompt once: of two classes with the same tokens neither may win by rounding alone.
    prompt = _first_of_its_kind(tokens.cpu().numpy())
    asked = sorted(set(prompt))
    place = {position: row for row, position in enumerate(asked)}
    same = [place[position] for position in prompt]
    with torch.inference_mode():
        features = torch.cat(
            [
                model.encode_text(batch.to(device)).float()  # type: ignore[operator]
                for batch in torch.split(tokens[asked], batch_size)
            ]
        )
        unit = normalize(features, dim=-1)[same].view(len(classnames), len(templates), -1)
        rows = np.array(same).reshape(len(classnames), -1)
        return normalize(unit.mean(dim=1), dim=-1)[_first_of_its_kind(rows)]


def _first_of_its_kind(rows: np.ndarray) -> list[int]:
    """Return, for each row, the position of the first row that is equal to it."""
    first: dict[bytes, int] = {}
    return [first.setdefault(row.tobytes(), position) for position, row in enumerate(rows)]
