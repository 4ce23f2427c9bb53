"""What callers pass as `trained`: the folder of a quantizer that learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipq.errors import QuantizerError
from clipq.evaluation.trained_folder import TrainedFolder
from clipq.evaluation.trained_search import learns
from clipq.quant import QuantizerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from clipq.models import LoadedModel

__all__ = ["read_trained", "required_state"]


def read_trained(
    quantizer: str | QuantizerSpec, trained: str | Path | None
) -> TrainedFolder | None:
    """Return the folder of a quantizer's trained state; None of one that learns nothing.

    Raises:
        QuantizerError: it learns and no folder is given, or learns nothing and one is; or the
            folder is damaged.

    >>> read_trained("rtn:w8", "trained/vit")
    Traceback (most recent call last):
    clipq.errors.QuantizerError: 'rtn:w8' learns nothing, and trained = 'trained/vit'
    ...
    """
    spec = QuantizerSpec.parse(quantizer).base
    needed = not spec.is_reference and learns(str(spec))
    if needed and trained is None:
        raise QuantizerError(
            f"{str(spec)!r} is trained, and no trained folder is given",
            hint="pass trained=FOLDER; clipq.train(model, quantizer, pairs, output=FOLDER) or "
            "`clipq train` makes one",
        )
    if trained is None:
        return None
    if not needed:
        raise QuantizerError(
            f"{str(spec)!r} learns nothing, and trained = {str(trained)!r}",
            hint="leave `trained` out, or name the quantizer that was trained",
        )
    return TrainedFolder.read(Path(trained))


def required_state(
    found: TrainedFolder, quantizer: str | QuantizerSpec, loaded: LoadedModel
) -> dict[str, Tensor]:
    """Return a trained state, of this quantizer and this model.

    Raises:
        QuantizerError: it is of another one.
    """
    from clipq.evaluation.identity import model_identity

    text = str(QuantizerSpec.parse(quantizer).base)
    found.require(text, model_identity(loaded), found.manifest.unit.model)
    return found.state()
