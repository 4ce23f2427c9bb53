"""Probes from class folders and image lists: what is read, and all that may be wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from clipq.data import Probe, open_probe
from clipq.errors import ProbeError

FILES = ("grey_fox/a.png", "grey_fox/deep/b.JPG", "owl/a.webp", "owl/c.jpeg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, file in enumerate(FILES):
        path = tmp_path / "birds" / "test" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "birds" / "test" / "owl" / "notes.txt").write_text("no image")
    return tmp_path / "birds"


def opened(root: Path, **changes: str) -> Probe:
    options = {"name": "p", "role": "in-distribution", "split": "test", "group": ""} | changes
    return open_probe(source=f"folder:{root.name}", base_dir=root.parent, **options)


def test_folders_are_classes_and_paths_are_ids(root):
    probe = opened(root)
    assert probe.classnames == ("grey fox", "owl")
    assert probe.ids == FILES
    assert probe.labels.tolist() == [0, 0, 1, 1]
    assert probe.templates == ("a photo of a {c}.",)
    content = (root / "test" / FILES[1]).read_bytes()
    assert probe.sample_hashes[1] == hashlib.sha256(content).hexdigest()
    assert [image.size for image in probe.images()] == [(7, 9)] * 4


def test_samples_and_labels_are_torchvision_s(root):
    theirs = torchvision.datasets.ImageFolder(str(root / "test"))
    probe = opened(root)
    ours = [
        (str(root / "test" / sample), int(label))
        for sample, label in zip(probe.ids, probe.labels, strict=True)
    ]
    assert sorted(ours) == sorted(theirs.samples)


def test_names_templates_and_attributes_may_be_given(root):
    (root / "classnames.txt").write_text("fox\nbarn owl\n")
    (root / "zeroshot_classification_templates.txt").write_text("one {c}\n")
    lines = [f"{file},{colour}" for file, colour in zip(FILES, "abca", strict=True)]
    (root / "attributes.csv").write_text("file,colour\n" + "\n".join(lines))
    probe = opened(root, group="colour")
    assert probe.classnames == ("fox", "barn owl")
    assert probe.templates == ("one {c}",)
    assert probe.groups == ("a", "b", "c", "a")
    assert probe.fingerprint != opened(root).fingerprint


def test_the_root_itself_is_the_split_that_is_a_dot(root):
    assert opened(root / "test", split=".").ids == FILES


def test_out_of_distribution_classes_are_no_labels(root):
    assert opened(root, role="ood").labels.tolist() == [-1] * 4


def test_an_edited_image_is_another_probe(root):
    before = opened(root)
    Image.new("RGB", (7, 9)).save(root / "test" / FILES[0])
    assert opened(root).fingerprint != before.fingerprint
    with pytest.raises(ProbeError, match="changed since the probe was opened"):
        list(before.images())


def remove_all(root):
    for file in FILES:
        (root / "test" / file).unlink()


BROKEN = [
    (lambda root: (root / "test" / FILES[0]).write_bytes(b"no image"), {}, "does not decode"),
    (lambda root: (root / "test" / "bat").mkdir(), {}, "'bat'"),
    (remove_all, {}, "holds no sample"),
    (lambda root: None, {"split": "tset"}, "no folder .*\n.*did you mean 'test'"),
    (lambda root: None, {"split": ""}, "no folder"),
    (lambda root: (root / "classnames.txt").write_text("a\nb\nc"), {}, "names 3 classes"),
    (lambda root: None, {"group": "sex"}, "attributes.csv cannot be read"),
    (
        lambda root: (root / "attributes.csv").write_text("file,age\na.png,3"),
        {"group": "sex"},
        "no column 'sex'",
    ),
    (
        lambda root: (root / "attributes.csv").write_text(f"file,sex\n{FILES[0]},f"),
        {"group": "sex"},
        "3 of 4 samples have no 'sex' .*first 'grey_fox/deep/b.JPG'",
    ),
    (
        lambda root: (root / "attributes.csv").write_text(f"file,sex\n{FILES[0]},f\n{FILES[0]},m"),
        {"group": "sex"},
        "names a file twice",
    ),
    (
        lambda root: (root / "SHA256SUMS").write_text(f"{'0' * 64}  test/{FILES[0]}"),
        {},
        "was tampered with",
    ),
]


@pytest.mark.parametrize(("damage", "options", "complaint"), BROKEN, ids=[b[2] for b in BROKEN])
def test_what_is_wrong_is_named(root, damage, options, complaint):
    damage(root)
    with pytest.raises(ProbeError, match=f"(?s){complaint}"):
        list(opened(root, **options).images())


def test_a_missing_root_is_named(root):
    with pytest.raises(ProbeError, match="no folder"):
        opened(root.parent / "fish")


def test_a_decompression_bomb_is_refused(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(ProbeError, match="does not decode"):
        list(opened(root).images())


class TestImageLists:
    @pytest.fixture
    def listed(self, root: Path) -> Path:
        lines = [f"test/{file} {number // 2}" for number, file in enumerate(FILES)]
        (root / "lists").mkdir()
        (root / "lists" / "a.txt").write_text("\n".join(lines))
        (root / "classnames.txt").write_text("fox\nowl")
        return root

    def opened(self, root: Path, **changes: str) -> Probe:
        options = {"name": "p", "role": "in-distribution", "split": "lists/a.txt", "group": ""}
        return open_probe(
            source=f"imagelist:{root.name}", base_dir=root.parent, **(options | changes)
        )

    def test_a_list_says_what_the_folders_say(self, listed):
        ours, theirs = self.opened(listed), opened(listed)
        assert ours.ids == tuple(f"test/{file}" for file in FILES)
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.sample_hashes == theirs.sample_hashes
        assert len(list(ours.images())) == 4

    def test_out_of_distribution_lists_need_no_classes(self, listed):
        (listed / "classnames.txt").unlink()
        (listed / "lists" / "b.txt").write_text(f"test/{FILES[0]} -1\ntest/{FILES[2]} 700")
        found = self.opened(listed, role="ood", split="lists/b.txt")
        assert found.labels.tolist() == [-1, -1]

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ("test/a.png", "line 1: 'test/a.png'"),
            ("test/a.png one", "line 1"),
            ("test/a.png 0\ntest/b.png 1", "cannot be read"),
            ("../secret.png 0", "lies outside of"),
            ("/etc/passwd 0", "lies outside of"),
            (f"test/{FILES[0]} 2", "label 2 is out of range"),
            (f"test/{FILES[0]} -1", "label -1 is out of range"),
            (f"test/{FILES[0]} 0\ntest/{FILES[0]} 1", "occurs 2 times"),
            (f"test/{FILES[0]} 0", "1 have no sample"),
        ],
    )
    def test_what_is_wrong_is_named(self, listed, line, complaint):
        (listed / "lists" / "a.txt").write_text(line)
        with pytest.raises(ProbeError, match=complaint):
            self.opened(listed)

    def test_a_missing_list_is_named(self, listed):
        with pytest.raises(ProbeError, match="no list of images"):
            self.opened(listed, split="lists/c.txt")
