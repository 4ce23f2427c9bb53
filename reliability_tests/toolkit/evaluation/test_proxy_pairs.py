"""Pairs to train on: fit for it, apart from what is evaluated, and looked at only by who trains."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clipq.data import (
    Images,
    Probe,
    check_disjoint,
    check_pictures_apart,
    probe_from_images,
)
from clipq.errors import ProbeError, SettingsError
from clipq.evaluation.cache import Cache
from clipq.evaluation.image_export import exportable
from clipq.evaluation.inputs import Inputs
from clipq.evaluation.plan import Selection, plan
from clipq.settings import ProbeSettings, Settings, load_settings

REPOSITORY = Path(__file__).parents[3]
AS_THEY_ARE = SimpleNamespace(to_uint8=np.asarray, identity="as they are")


def picture(shade: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(shade).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_pairs(root: Path, pairs: list[tuple[bytes, str | None]]) -> None:
    """Write shards as img2dataset does: numbered, an image, a caption and what is known of it."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "00000.tar", "w") as shard:
        for at, (image, caption) in enumerate(pairs):
            members = {"jpg": image, "json": b'{"status": "success"}'}
            if caption is not None:
                members["txt"] = caption.encode()
            for kind, content in members.items():
                info = tarfile.TarInfo(f"{at:09d}.{kind}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    (root / "00000_stats.json").write_text("{}")
    (root / "00000.parquet").touch()


def of(shades: range, role: str) -> Probe:
    images = [Image.open(io.BytesIO(picture(shade))) for shade in shades]
    labels = [] if role == "ood" else [at % 2 for at in range(len(images))]
    given = Images(images, labels, () if role == "ood" else ("cat", "dog"))
    return probe_from_images(given, name=role, role=role)


@pytest.fixture
def project(tmp_path: Path):
    """Inputs of a project whose proxy lies in a folder; each use of it opens the folder anew."""

    def inputs(
        pairs: list[tuple[bytes, str | None]] | None,
        *others: ProbeSettings,
        proxy: Probe | None = None,
        **given,
    ) -> Inputs:
        tables = [
            ProbeSettings(role, role, "in memory")
            for role in ("in-distribution", "calibration", "ood")
        ]
        if pairs is not None:
            write_pairs(tmp_path / "pairs", pairs)
            tables.append(ProbeSettings("proxy", "proxy", "webdataset:pairs", ".", **given))
        tables += others
        settings = Settings(
            tmp_path / "clipq.toml", (), tuple(tables), (), cache=tmp_path / "cache"
        )
        ranges = {"in-distribution": range(100, 104), "calibration": range(4), "ood": range(8, 10)}
        opened = {role: of(shades, role) for role, shades in ranges.items()}
        opened |= {} if proxy is None else {"proxy": proxy}
        return Inputs(settings, Cache(settings.cache), opened=opened)

    return inputs


def pairs_of(*captions: str | None) -> list[tuple[bytes, str | None]]:
    return [(picture(at + 50, "JPEG"), caption) for at, caption in enumerate(captions)]


def test_pairs_are_preprocessed_images_and_every_caption_with_its_owner(project):
    inputs = project(pairs_of("a cat\n\n a pet \n", "a dog", "a cat"))
    pairs = inputs.pairs(AS_THEY_ARE)
    assert pairs.images.shape == (3, 8, 8, 3)
    assert pairs.images.dtype == np.uint8
    assert isinstance(pairs.images, np.memmap)
    assert pairs.captions == ("a cat", "a pet", "a dog", "a cat")
    assert pairs.owners.tolist() == [0, 0, 1, 2]
    assert pairs.ids == ("000000000", "000000001", "000000002")
    shown = np.asarray(Image.open(io.BytesIO(picture(51, "JPEG"))))
    assert np.array_equal(pairs.images[1], shown)


def test_a_caption_or_an_image_that_changes_makes_other_pairs(project):
    captions = ("a cat", "a dog")
    first = project(pairs_of(*captions)).proxy_fingerprint
    assert project(pairs_of(*captions)).proxy_fingerprint == first
    assert project(pairs_of("a cat", "a doG")).proxy_fingerprint != first
    swapped = [
        (image, text) for (image, _), text in zip(pairs_of("", "")[::-1], captions, strict=True)
    ]
    assert project(swapped).proxy_fingerprint != first


def test_whoever_trains_nothing_does_not_open_them(project):
    inputs = project([(b"", None)])  # which could not be opened
    assert set(inputs.probes) == {"in-distribution", "calibration", "ood"}
    with pytest.raises(SettingsError, match="trained on and never evaluated on"):
        inputs.probes["proxy"]
    with pytest.raises(ProbeError):
        inputs.proxy  # noqa: B018


@pytest.mark.parametrize(
    ("pairs", "given", "complaint"),
    [
        ([], {}, "holds no sample"),
        (pairs_of(None, None), {}, "no captions, which its role 'proxy' is about"),
        (pairs_of("a cat", None, None), {}, "1 of 3 samples .*and not 000000001, 000000002"),
        (pairs_of("a cat", "  \n "), {}, "row 1 .*sample '000000001'.* has the caption ''"),
        (pairs_of("a cat"), {}, "one pair, and what tells pairs apart"),
        (pairs_of("a cat", "a cat "), {}, "all 2 pairs have one caption, 'a cat'"),
        ([(picture(50), "a cat"), (picture(50), "a dog")], {}, "all 2 pairs have one image"),
        (pairs_of("a cat", "a dog"), {"samples": 3}, "holds 2 samples, samples = 3"),
        (
            [*pairs_of("a cat", "a dog"), (b"\xff\xd8\xff no", "x")],
            {},
            "sample '000000002' of .*does not decode",
        ),
        (
            [*pairs_of("a cat"), (picture(101), "a dog"), (picture(9, "BMP"), "a cow")],
            {},
            "shares, pixel for pixel, 1 image with 'in-distribution': 000000001 = 1; "
            "1 image with 'ood': 000000002 = 1",
        ),
    ],
)
def test_pairs_that_cannot_be_trained_on_are_refused(project, pairs, given, complaint):
    inputs = project(pairs, **given)
    with pytest.raises(ProbeError, match=f"(?s)proxy.*{complaint}"):
        inputs.pairs(AS_THEY_ARE)


@pytest.mark.parametrize("use", ["", "release"])
def test_an_image_that_is_evaluated_is_never_trained_on(project, use):
    """Nor one that is kept for releases, of which nobody is to know anything before."""
    other = ProbeSettings("captions", "retrieval", "webdataset:pairs", ".", use=use)
    with pytest.raises(ProbeError, match="'proxy' shares 2 images with 'captions': 000000000 ="):
        project(pairs_of("a cat", "a dog"), other).proxy  # noqa: B018


def test_a_release_probe_that_is_not_here_hinders_no_training(project):
    other = ProbeSettings("final", "retrieval", "webdataset:elsewhere", ".", use="release")
    assert len(project(pairs_of("a cat", "a dog"), other).proxy) == 2


def test_pixels_are_compared_once_for_the_same_images(project, monkeypatch):
    pairs = pairs_of("a cat", "a dog")
    assert len(project(pairs).proxy) == 2
    monkeypatch.setattr("clipq.evaluation.proxy_pairs.check_pictures_apart", None)
    assert len(project(pairs).proxy) == 2
    with pytest.raises(TypeError):
        project([*pairs, (picture(60), "a cow")]).proxy  # noqa: B018


def test_without_a_proxy_the_captions_of_the_calibration_split_are_taken(project):
    inputs = project(None)
    with pytest.raises(SettingsError, match=r"nothing to train on(?s:.*)role = 'proxy', source ="):
        inputs.proxy  # noqa: B018
    captions = ("a cat", "a dog", "a cat", "a dog")
    split = inputs.calibration
    inputs = project(None)
    inputs.probes["calibration"] = replace(split, captions=captions)
    assert inputs.pairs(AS_THEY_ARE).captions == captions
    assert inputs.pairs(AS_THEY_ARE).fingerprint == inputs.proxy_fingerprint


def test_pairs_in_memory_are_taken_as_well(project):
    pictures = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    captions = ["a cat", ["a dog", "a pet"], "a cow"]
    given = probe_from_images(Images(pictures, captions=captions), name="proxy", role="proxy")
    inputs = project(None, ProbeSettings("proxy", "proxy", "in memory"), proxy=given)
    pairs = inputs.pairs(AS_THEY_ARE)
    assert np.array_equal(pairs.images, pictures)
    assert pairs.captions == ("a cat", "a dog", "a pet", "a cow")
    assert pairs.owners.tolist() == [0, 1, 1, 2]
    with pytest.raises(ProbeError, match="3 images and 2 captions"):
        probe_from_images(Images(pictures, captions=captions[:2]), name="proxy", role="proxy")
    with pytest.raises(ProbeError, match="row 1 of images in memory"):
        probe_from_images(Images(pictures, captions=["a", " ", "b"]), name="proxy", role="proxy")


def test_the_embedded_pairs_are_rendered_alike_and_are_in_no_other_probe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "fixtures")
    from proxy import pairs

    written = []
    for name in ("one", "other"):
        pairs(tmp_path / name, count=32)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    settings = load_settings(REPOSITORY / "clipq.toml")
    inputs = Inputs(settings, Cache(settings.cache))
    assert len(inputs.proxy) == 1000  # apart from all that is evaluated, or it had been refused
    check_disjoint(inputs.proxy, inputs.calibration)
    check_pictures_apart(inputs.proxy, inputs.calibration)
    words = {word for caption in inputs.proxy.captions or () for word in caption.split()}
    assert set(inputs.known.classnames) <= words


def test_what_is_declared_to_train_on_makes_no_case_and_needs_no_margin_or_baseline():
    settings = load_settings(REPOSITORY / "clipq.toml")
    assert settings.proxy is not None
    without = replace(settings, probes=tuple(p for p in settings.probes if p != settings.proxy))
    assert plan(settings, profile="full") == plan(without, profile="full")
    with pytest.raises(SettingsError, match="no probe matches 'proxy'"):
        plan(settings, selection=Selection(probes=("proxy",)))
    untuned = replace(settings, artifacts=())
    with pytest.raises(SettingsError, match="no artifact is tuned on its pairs"):
        exportable(Inputs(untuned, Cache(settings.cache)), ["proxy"])
