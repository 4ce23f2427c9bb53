"""The runtime `features`: nothing is run, what was made elsewhere is looked up.

Image features are looked up by sample id (`feature_files`). Text features are looked up by tokens,
so that class prompts and captions go the way of any text tower: a file has an array ``tokens``
(M, L) and one ``features`` (M, D), or columns ``tokens`` and ``embedding``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, listed
from clipq.runtimes.feature_arrays import FORMATS, as_features, read_arrays
from clipq.runtimes.feature_files import feature_paths
from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import Look, Port, TowerFacts, TowerPorts

__all__ = ["RUNTIME", "FeaturesRuntime", "TokenFeatures"]


class TokenFeatures:
    """Text features that were made elsewhere, looked up by the tokens of the text.

    Args:
        path: of the file.

    Raises:
        ArtifactError: it is missing or damaged, or one text has two features.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "text.npz"
    ...     np.savez(path, tokens=[[1, 5, 2]], features=np.ones((1, 4), np.float32))
    ...     TokenFeatures(path).run({"input": np.array([[1, 5, 2], [1, 5, 2]])}).shape
    (2, 4)
    """

    def __init__(self, path: Path) -> None:
        arrays = read_arrays(path)
        tokens, features = arrays.get("tokens"), arrays.get("features")
        if tokens is None or features is None:
            raise ArtifactError(
                f"{path} holds {listed(list(map(repr, arrays))) or 'nothing'}, and no arrays "
                "'tokens' and 'features'",
                hint="text features are looked up by tokens: keep those that `clipq artifact "
                "images` writes beside the features; class embeddings are the artifact's `head`",
            )
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ArtifactError(
                f"{path}: tokens are {tokens.dtype} of shape {tokens.shape}, not whole numbers "
                "(M, L)",
                hint="keep them as `clipq artifact images` writes them",
            )
        self._path = path
        self._features = as_features(features, str(path))
        if len(tokens) != len(self._features):
            raise ArtifactError(
                f"{path}: {len(tokens):,} rows of tokens and {len(self._features):,} of features",
                hint="write one row of features for each row of tokens, in the same order",
            )
        broken = np.flatnonzero(~np.isfinite(self._features).all(axis=1))
        if len(broken):
            raise ArtifactError(
                f"{path}: {len(broken):,} of {len(tokens):,} rows hold NaN or infinity, the first "
                f"row {broken[0]}",
                hint="the engine overflowed, or its output was read before it was written",
            )
        self._length = tokens.shape[1]
        self._rows: dict[bytes, int] = {}
        for row, key in enumerate(_keys(tokens)):
            first = self._rows.setdefault(key, row)
            if not np.array_equal(self._features[first], self._features[row]):
                raise ArtifactError(
                    f"{path}: rows {first} and {row} have the same tokens and other features",
                    hint="write each text once; nobody can tell which of them is meant",
                )

    @property
    def facts(self) -> TowerFacts:
        """What is known of where they come from: nothing but their shape."""
        return TowerFacts(
            (Port("tokens", "int64", (-1, self._length)),),
            (Port("features", "float32", (-1, self._features.shape[1])),),
        )

    def run(self, inputs: Mapping[str, np.ndarray], /) -> np.ndarray:
        """Return features (B, D) of tokens (B, L).

        Raises:
            ArtifactError: a text's features are missing, or texts have another number of tokens.
        """
        tokens = inputs["input"]
        if tokens.ndim != 2 or tokens.shape[1] != self._length:
            raise ArtifactError(
                f"{self._path} has features of texts of {self._length} tokens, and the model's "
                f"tokenizer makes arrays of shape {tokens.shape}",
                hint="they were made with another tokenizer: use what `clipq artifact images` "
                "writes for this model",
            )
        keys = list(_keys(tokens))
        missing = [tokens[row].tolist() for row, key in enumerate(keys) if key not in self._rows]
        if missing:
            begins = ", ".join(map(str, missing[0][:8]))
            raise ArtifactError(
                f"{self._path}: features of {len(missing):,} of {len(keys):,} texts are missing, "
                f"the first with the tokens [{begins} ...]",
                hint="prompts or captions changed since: write them again with `clipq artifact "
                "images` and encode them",
            )
        return self._features[[self._rows[key] for key in keys]]


class FeaturesRuntime:
    """Looks up what was made elsewhere; see `clipq.runtimes.Runtime`."""

    version = 1
    packages = ("numpy", "pyarrow", "safetensors")
    extra = "features"

    def sidecars(self, path: Path, /) -> tuple[Path, ...]:
        """Return the files of a folder; none beside a file.

        >>> FeaturesRuntime().sidecars(Path("features.npz"))
        ()
        """
        return feature_paths(path) if path.is_dir() else ()

    def look(self, path: Path, /) -> Look:
        """Return sizes and shapes of what is in the files.

        Raises:
            ArtifactError: there is none, or one is damaged.
        """
        paths = feature_paths(path)
        if not paths:
            raise ArtifactError(
                f"{path} holds no features",
                hint=f"bring files there that end in {', '.join(FORMATS)}",
            )
        ports: set[Port] = set()
        findings = []
        for one in paths:
            for name, values in read_arrays(one).items():
                if name.rpartition(".")[2] != "features":
                    continue
                ports.add(Port("features", str(values.dtype), (-1, *values.shape[1:])))
                broken = values.dtype.kind == "f" and not np.isfinite(values).all()
                if broken:
                    findings.append(
                        Finding(
                            "not-finite",
                            f"{one}: {name} holds NaN or infinity",
                            "the engine overflowed, or its output was read before it was written",
                        )
                    )
        size = sum(one.stat().st_size for one in paths)
        outputs = tuple(sorted(ports, key=lambda port: (port.dtype, port.shape)))
        return Look(bytes=size, outputs=outputs, findings=tuple(findings))

    def open(self, path: Path, ports: TowerPorts, session: SessionSettings, /) -> TokenFeatures:
        """Open text features.

        Raises:
            ArtifactError: a session asks for what only a runtime that runs something can do, the
                tower is one of images, which are looked up by id, or the file is damaged.
        """
        asked = [
            name for name in ("precision", "provider", "env", "options") if getattr(session, name)
        ]
        if asked:
            raise ArtifactError(
                f"session.{asked[0]} is set, and runtime 'features' runs nothing",
                hint="remove the session: how the features were made cannot be told from here",
            )
        if ports.kind != "text":
            raise ArtifactError(
                f"image features of {path} are looked up by sample id: there is no image tower to "
                "run",
                hint="other images than those of the probes cannot be encoded",
            )
        return TokenFeatures(path)


def _keys(tokens: np.ndarray) -> Sequence[bytes]:
    rows = np.ascontiguousarray(tokens, np.int64)
    return [row.tobytes() for row in rows]


RUNTIME = FeaturesRuntime()
