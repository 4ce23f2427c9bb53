"""Probes from WebDataset shards: what is read, and every way in which a shard may be wrong."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path
from threading import Event, Semaphore, Timer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipq.data import (
    Probe,
    check_disjoint,
    load,
    look_at_probe,
    materialise,
    open_probe,
    probe_sources,
    streamed,
)
from clipq.data.tar_headers import plain_files
from clipq.errors import CacheError, ProbeError, SettingsError, UnknownNameError

CLASSES = ("circle", "square", "grey fox")
TEMPLATES = ("a photo of the {c}", "the {c}")


def encoded(index: int, *, kind: str = "PNG", size: tuple[int, int] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def sample(index: int, **changes: bytes | None) -> dict[str, bytes]:
    """One sample's members, ``<extension>: bytes``; None removes one."""
    members: dict[str, bytes | None] = {
        "cls": str(index % len(CLASSES)).encode(),
        "json": b'{"colour": "%s", "size": 3}' % (b"red" if index % 2 else b"blue"),
        "png": encoded(index),
    }
    return {kind: value for kind, value in (members | changes).items() if value is not None}


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for key, members in samples.items():
            for kind, content in members.items():
                info = tarfile.TarInfo(f"{key}.{kind}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))


def write_probe(root: Path, *shards: dict[str, dict[str, bytes]], split: str = "test") -> Path:
    for number, samples in enumerate(shards):
        write_shard(root / split / f"{number}.tar", samples)
    (root / split / "nshards.txt").write_text(str(len(shards)))
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return root


def write_sums(folder: Path, root: Path) -> None:
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def samples(*indices: int) -> dict[str, dict[str, bytes]]:
    return {f"s{index:03d}": sample(index) for index in indices}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_probe(tmp_path / "probe", samples(0, 1, 2), samples(3, 4))


def opened(root: Path, *, role: str = "in-distribution", split: str = "test", group: str = ""):
    return open_probe(
        name="mine",
        role=role,
        source=f"webdataset:{root.name}",
        split=split,
        base_dir=root.parent,
        group=group,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestReading:
    def test_samples_come_in_shard_order(self, root):
        probe = opened(root)
        assert probe.ids == ("s000", "s001", "s002", "s003", "s004")
        assert probe.labels.tolist() == [0, 1, 2, 0, 1]
        assert probe.labels.dtype == np.int64
        assert probe.classnames == CLASSES
        assert probe.templates == TEMPLATES
        assert probe.captions is None
        assert probe.groups == ("",) * 5
        assert len(probe) == 5

    def test_hashes_are_of_the_encoded_bytes(self, root):
        expected = [hashlib.sha256(encoded(i)).hexdigest() for i in range(5)]
        assert list(opened(root).sample_hashes) == expected

    def test_images_are_decoded_in_the_same_order(self, root):
        for index, image in enumerate(opened(root).images()):
            expected = np.asarray(Image.open(io.BytesIO(encoded(index))))
            np.testing.assert_array_equal(np.asarray(image), expected)

    @pytest.mark.parametrize("kind", ["webp", "jpg", "jpeg", "png"])
    def test_image_kinds(self, tmp_path, kind):
        content = encoded(0, kind="JPEG" if kind.startswith("j") else kind.upper())
        members = {"s": sample(0, png=None) | {kind: content}}
        probe = opened(write_probe(tmp_path / "p", members), role="ood")
        assert next(probe.images()).size == (9, 7)

    def test_groups_and_captions(self, tmp_path):
        members = {f"s{i}": sample(i, txt=b" a red fox\n") for i in range(3)}
        probe = opened(write_probe(tmp_path / "p", members), group="colour")
        assert probe.groups == ("blue", "red", "blue")
        assert probe.captions == ("a red fox",) * 3
        assert opened(tmp_path / "p", group="size").groups == ("3",) * 3

    def test_labels_of_an_ood_probe_are_not_classes_of_the_head(self, root):
        assert opened(root, role="ood").labels.tolist() == [-1] * 5

    def test_only_in_distribution_must_hold_every_class(self, tmp_path):
        root = write_probe(tmp_path / "p", samples(0, 1))
        opened(root, role="ood")
        opened(root, role="calibration")
        with pytest.raises(ProbeError, match=r"1 have no sample.*'grey fox'"):
            opened(root)

    def test_classes_that_the_head_lacks_are_left_out_and_counted(self, root):
        text = "class,head_class\ncircle,ring\nsquare,\ngrey fox,fox\n"
        (root / "classmap.csv").write_text(text)
        probe = opened(root, role="shift")
        assert probe.classnames == ("circle", "grey fox")
        assert probe.class_map == (("ring",), ("fox",))
        assert probe.ids == ("s000", "s002", "s003")
        assert probe.labels.tolist() == [0, 1, 0]
        assert len(list(probe.images())) == 3
        assert len(opened(root, role="ood")) == 5
        where = {"source": f"webdataset:{root.name}", "split": "test", "base_dir": root.parent}
        assert look_at_probe(name="p", role="shift", **where) == {
            "shards": 2,
            "classes": 2,
            "classes left out, for which the head has none": 1,
        }

    def test_braces_in_a_folder_are_not_expanded(self, tmp_path):
        root = write_probe(tmp_path / "p{0..1}", samples(0, 1, 2))
        assert len(opened(root)) == 3

    def test_the_global_random_state_is_left_alone(self, root):
        random.seed(0)
        before = random.getstate()
        list(opened(root).images())
        assert random.getstate() == before

    def test_importing_and_naming_sources_needs_neither_torch_nor_webdataset(self):
        code = (
            "import sys, clipq.data as d; d.probe_sources.names();"
            "sys.exit(len({'torch', 'webdataset'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_sources_are_a_registry(self, root):
        assert "webdataset" in probe_sources

        def twin(location, **options):
            return probe_sources.get("webdataset")(location, **options)

        probe_sources.add("twin", twin)
        try:
            probe = open_probe(
                name="x", role="ood", source="twin:probe", split="test", base_dir=root.parent
            )
        finally:
            probe_sources.remove("twin")
        assert len(probe) == 5


class TestFingerprint:
    def test_is_repeatable(self, root):
        assert opened(root).fingerprint == opened(root).fingerprint

    def test_ignores_how_samples_are_sharded(self, root, tmp_path):
        other = write_probe(tmp_path / "other", samples(0, 1, 2, 3, 4))
        assert opened(other).fingerprint == opened(root).fingerprint

    @pytest.mark.parametrize(
        "changed",
        [
            samples(1, 0, 2, 3, 4),
            samples(0, 1, 2, 3),
            samples(0, 1, 2, 3) | {"other": sample(4)},
            samples(0, 1, 2, 3) | {"s004": sample(4, cls=b"2")},
            samples(0, 1, 2, 3) | {"s004": sample(4, png=encoded(99))},
        ],
        ids=["order", "count", "id", "label", "image"],
    )
    def test_changes_with_the_samples(self, root, tmp_path, changed):
        other = write_probe(tmp_path / "other", changed)
        assert opened(other).fingerprint != opened(root).fingerprint

    def test_changes_with_the_groups(self, root):
        assert opened(root, group="colour").fingerprint != opened(root).fingerprint


class TestDamage:
    def refused(self, root: Path, message: str, **options: str) -> str:
        with pytest.raises(ProbeError, match=message) as caught:
            opened(root, **options)
        assert caught.value.hint
        return str(caught.value)

    def test_missing_shard(self, root):
        (root / "test" / "1.tar").unlink()
        assert str(root / "test" / "1.tar") in self.refused(root, "missing")

    def test_unannounced_shard(self, root):
        write_shard(root / "test" / "2.tar", samples(7))
        self.refused(root, "2.tar, but nshards.txt announces 2")

    @pytest.mark.parametrize("text", ["", "0", "-1", "two", "1_0", "²", "1\n2"])
    def test_nonsense_in_nshards(self, root, text):
        (root / "test" / "nshards.txt").write_text(text, encoding="utf-8")
        self.refused(root, "nshards.txt")

    def test_every_truncation_of_a_shard_is_noticed(self, root):
        """At each 512-byte block, hence also exactly between members and in the end marker."""
        path = root / "test" / "0.tar"
        whole = path.read_bytes()
        with tarfile.open(path) as archive:
            last = archive.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
        for size in [*range(0, end + 1024, 512), 100, end - 1, end + 1023]:
            path.write_bytes(whole[:size])
            message = self.refused(root, "truncated or damaged")
            assert str(path) in message
            assert sha256(path) in message

    def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(self, root):
        path = root / "test" / "0.tar"
        content = bytearray(path.read_bytes())
        with tarfile.open(path) as archive:
            content[archive.getmembers()[4].offset + 150] ^= 0x55  # breaks the header checksum
        path.write_bytes(content)
        assert sha256(path) in self.refused(root, "truncated or damaged")

    @pytest.mark.parametrize("content", [b"", b"not a tar" * 200, bytes([0x1F, 0x8B]) * 600])
    def test_not_a_tar(self, root, content):
        (root / "test" / "1.tar").write_bytes(content)
        self.refused(root, "truncated or damaged")

    def test_a_link_in_a_shard(self, root):
        with tarfile.open(root / "test" / "1.tar", "w") as shard:
            info = tarfile.TarInfo("s.png")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            shard.addfile(info)
        self.refused(root, "not a plain file")

    def test_no_samples(self, tmp_path):
        self.refused(write_probe(tmp_path / "p", {}), "holds no sample")

    def test_an_id_in_two_shards(self, tmp_path):
        self.refused(write_probe(tmp_path / "p", samples(0, 1), samples(2, 1)), "'s001' occurs 2")

    def test_files_of_one_sample_apart_from_each_other(self, tmp_path):
        root = write_probe(tmp_path / "p", samples(0))
        with tarfile.open(root / "test" / "0.tar", "w") as shard:
            for name in ("a.cls", "a.png", "b.cls", "b.png", "a.json"):
                content = b"0" if name.endswith("cls") else encoded(0)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
        self.refused(root, "'a'")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"cat", "'cat' is not a whole number"),
            (b"", "'' is not a whole number"),
            (b"1.0", "not a whole number"),
            (b"1_0", "not a whole number"),
            (b"\xff", "not UTF-8"),
            (None, "no label"),
            (b"3", "label 3 is out of range"),
            (b"-1", "label -1 is out of range"),
        ],
    )
    def test_labels(self, tmp_path, text, message):
        root = write_probe(tmp_path / "p", samples(0, 1, 2) | {"bad": sample(3, cls=text)})
        said = self.refused(root, message)
        assert "'bad'" in said
        assert sha256(root / "test" / "0.tar") in said

    def test_no_image_or_two(self, tmp_path):
        root = write_probe(tmp_path / "p", {"bad": sample(0, png=None)})
        self.refused(root, "'bad'.* 0 images")
        root = write_probe(tmp_path / "p", {"bad": sample(0, jpg=encoded(0, kind="JPEG"))})
        self.refused(root, "'bad'.* 2 images")

    @pytest.mark.parametrize("attributes", [None, b"{", b"[]", b'{"size": 1}', b'{"colour": [1]}'])
    def test_group_attribute(self, tmp_path, attributes):
        root = write_probe(tmp_path / "p", samples(0, 1) | {"bad": sample(2, json=attributes)})
        opened(root)
        self.refused(root, "(?s)'bad'.* attribute 'colour'", group="colour")

    def test_captions_for_some_only(self, tmp_path):
        root = write_probe(tmp_path / "p", samples(0, 1) | {"s": sample(2, txt=b"a fox")})
        self.refused(root, "1 of 3 samples")

    @pytest.mark.parametrize("file", ["classnames.txt", "zeroshot_classification_templates.txt"])
    def test_text_files(self, root, file):
        path = root / file
        path.write_text("one\n\ntwo\n")  # would shift the labels of every later class
        self.refused(root, f"{file}: line 2 is empty")
        path.write_bytes(b"\xff\xfe")
        self.refused(root, f"{file} cannot be read")
        path.unlink()
        self.refused(root, f"{file} cannot be read")

    def test_missing_folder_and_split(self, root):
        self.refused(root.parent / "nothing", "no folder")
        assert "did you mean 'test'" in self.refused(root, "no split 'tset'", split="tset")

    def test_image_that_does_not_decode_is_named(self, tmp_path):
        broken = encoded(2)[:60]
        root = write_probe(tmp_path / "p", samples(0, 1) | {"bad": sample(2, png=broken)})
        with pytest.raises(ProbeError, match=r"'bad'.*does not decode") as caught:
            list(opened(root).images())
        assert sha256(root / "test" / "0.tar") in str(caught.value)

    def test_decompression_bomb_is_refused_not_warned_about(self, root, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # 63 pixels: Pillow would only warn
        with pytest.raises(ProbeError, match="decompression bomb"):
            next(opened(root).images())

    def test_shards_rewritten_after_opening(self, root):
        probe = opened(root)
        write_shard(root / "test" / "0.tar", samples(7, 8, 9))
        with pytest.raises(ProbeError, match="changed since"):
            list(probe.images())

    def test_sources_and_roles(self, root):
        arguments = {"name": "x", "split": "test", "base_dir": root.parent}
        with pytest.raises(SettingsError, match="kind:location"):
            open_probe(role="ood", source="probe", **arguments)
        with pytest.raises(UnknownNameError, match="webdataset"):
            open_probe(role="ood", source="webdatset:probe", **arguments)
        with pytest.raises(SettingsError, match="did you mean 'ood'"):
            open_probe(role="oood", source="webdataset:probe", **arguments)


class TestChecksums:
    @pytest.fixture(params=["root", "parent"])
    def sums(self, root, request):
        folder = root if request.param == "root" else root.parent
        write_sums(folder, root)
        return folder / "SHA256SUMS"

    def test_matching_files_open(self, root, sums):
        assert len(opened(root)) == 5

    @pytest.mark.parametrize(
        "file", ["test/1.tar", "classnames.txt", "zeroshot_classification_templates.txt"]
    )
    def test_a_changed_file_is_named_with_both_hashes(self, root, sums, file):
        path = root / file
        expected = sha256(path)
        content = bytearray(path.read_bytes())
        content[10] ^= 1
        path.write_bytes(content)
        with pytest.raises(ProbeError, match="tampered with or truncated") as caught:
            opened(root)
        for part in (str(path), expected, sha256(path)):
            assert part in str(caught.value)

    def test_an_unlisted_shard_is_refused(self, root, sums):
        write_probe(root, samples(0, 1, 2), samples(3, 4), samples(5))
        lines = sums.read_text().splitlines()
        kept = [line for line in lines if "nshards" not in line]
        place = (root / "test").relative_to(sums.parent)
        kept.append(f"{sha256(root / 'test' / 'nshards.txt')}  {place}/nshards.txt")
        sums.write_text("\n".join(kept) + "\n")
        with pytest.raises(ProbeError, match=r"2\.tar .* is not listed"):
            opened(root)

    def test_binary_marker_and_upper_case(self, root, sums):
        lines = [line.replace("  ", " *", 1) for line in sums.read_text().splitlines()]
        sums.write_text("\n".join(line[:64].upper() + line[64:] for line in lines))
        assert len(opened(root)) == 5

    def test_a_parent_that_speaks_of_other_folders_only(self, root):
        (root.parent / "SHA256SUMS").write_text(f"{'0' * 64}  elsewhere/0.tar\n")
        assert len(opened(root)) == 5

    @pytest.mark.parametrize("line", ["nonsense", f"{'0' * 64}", f"{'0' * 63}  probe/x"])
    def test_a_malformed_line(self, root, line):
        (root / "SHA256SUMS").write_text(line + "\n")
        with pytest.raises(ProbeError, match="has the line"):
            opened(root)


class TestDisjoint:
    def test_shared_image_under_another_id_and_split(self, tmp_path):
        write_probe(tmp_path / "p", samples(0, 1, 2))
        write_probe(tmp_path / "p", {"x": sample(9), "y": sample(1)}, split="calibration")
        calibration = opened(tmp_path / "p", role="calibration", split="calibration")
        message = r"shares 1 image with .mine.: y = s001"
        with pytest.raises(ProbeError, match=message):
            check_disjoint(calibration, opened(tmp_path / "p"))

    def test_every_evaluation_probe_is_checked(self, tmp_path):
        for name, indices in (("a", (0, 1, 2)), ("b", (3, 4, 5)), ("c", (5, 6, 7))):
            write_probe(tmp_path / name, samples(*indices))
        first, second, third = (opened(tmp_path / name) for name in "abc")
        check_disjoint(first, second, third)
        with pytest.raises(ProbeError, match="shares"):
            check_disjoint(second, first, third)


class TestMaterialise:
    @staticmethod
    def to_uint8(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((4, 6)))

    def test_holds_every_image_in_order(self, root, tmp_path):
        probe, seen = opened(root), []
        path = tmp_path / "cache" / "images.npy"
        materialise(probe, self.to_uint8, path, progress=seen.append)
        images = load(path)
        assert images.shape == (5, 6, 4, 3)
        assert images.dtype == np.uint8
        for stored, image in zip(images, probe.images(), strict=True):
            np.testing.assert_array_equal(stored, self.to_uint8(image))
        assert seen == [1, 2, 3, 4, 5]
        assert [p.name for p in path.parent.iterdir()] == ["images.npy"]

    def test_is_mapped_read_only(self, root, tmp_path):
        materialise(opened(root), self.to_uint8, tmp_path / "i.npy")
        images = load(tmp_path / "i.npy")
        assert isinstance(images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images[0, 0, 0, 0] = 1

    @pytest.mark.parametrize(
        "to_uint8",
        [
            lambda image: np.zeros((image.getpixel((0, 0))[0] + 1, 2, 3), np.uint8),
            lambda image: np.zeros((2, 2, 3), np.float32),
            lambda image: np.zeros((2, 2), np.uint8),
        ],
        ids=["sizes differ", "floats", "no channels"],
    )
    def test_wrong_pixels_leave_no_file(self, root, tmp_path, to_uint8):
        path = tmp_path / "cache" / "i.npy"
        with pytest.raises(ProbeError, match="preprocessed to"):
            materialise(opened(root), to_uint8, path)
        assert list(path.parent.iterdir()) == []

    def test_a_failed_write_keeps_the_old_file(self, root, tmp_path):
        path = tmp_path / "i.npy"
        probe = opened(root)
        materialise(probe, self.to_uint8, path)
        before = path.read_bytes()
        (root / "test" / "1.tar").write_bytes(b"")
        with pytest.raises(ProbeError):
            materialise(probe, self.to_uint8, path)
        assert path.read_bytes() == before

    def test_fewer_images_than_samples(self, root, tmp_path):
        probe = opened(root)
        short = replace(probe, read_encoded=lambda: iter(list(probe.read_encoded())[:3]))
        with pytest.raises(ProbeError, match="3 images for 5 samples"):
            materialise(short, self.to_uint8, tmp_path / "i.npy")

    def test_unwritable_folder(self, root, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CacheError, match="cannot write"):
            materialise(opened(root), self.to_uint8, tmp_path / "file" / "i.npy")

    def test_damaged_files_are_refused(self, root, tmp_path):
        path = tmp_path / "i.npy"
        materialise(opened(root), self.to_uint8, path)
        whole = path.read_bytes()
        for content in (b"", whole[:50], whole[:-1], b"x" * 300):
            path.write_bytes(content)
            with pytest.raises(CacheError):
                load(path)
        np.save(path, np.zeros((5, 6, 4, 3), np.uint8))  # pixels that nobody sealed
        with pytest.raises(CacheError, match="no seal"):
            load(path)

    def test_no_bit_of_an_image_file_changes_unseen(self, root, tmp_path):
        path = tmp_path / "i.npy"
        materialise(opened(root), self.to_uint8, path, key="these")
        whole = path.read_bytes()
        with pytest.raises(CacheError, match="the images of 'these', not of 'those'"):
            load(path, key="those")
        for position in range(len(whole)):
            changed = bytearray(whole)
            changed[position] ^= 1
            path.write_bytes(changed)
            with pytest.raises(CacheError):
                load(path, key="these")


def test_a_probe_is_a_value_without_ambiguous_equality(root):
    probe = opened(root)
    assert isinstance(probe, Probe)
    assert probe == probe
    assert len({probe}) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe != opened(root)


class TestStreaming:
    def test_blocks_are_the_images_and_the_file_is_whole_at_the_end(self, root, tmp_path):
        probe, path = opened(root), tmp_path / "images.npy"
        blocks = list(streamed(probe, np.asarray, path, size=4))
        assert [len(block) for block in blocks] == [4, 1]
        np.testing.assert_array_equal(np.concatenate(blocks), load(path))
        materialise(probe, np.asarray, tmp_path / "other.npy")
        assert path.read_bytes() == (tmp_path / "other.npy").read_bytes()

    def test_stopping_early_leaves_nothing(self, root, tmp_path):
        stream = streamed(opened(root), np.asarray, tmp_path / "images.npy", size=1)
        next(stream)
        stream.close()
        assert list(tmp_path.glob("*.npy")) == []
        assert list(tmp_path.glob(".*.tmp")) == []

    def test_stopping_once_all_are_decoded_but_not_handed_over_leaves_nothing(self, root, tmp_path):
        probe, decoded, go_on = opened(root), Semaphore(0), Event()

        def preprocess(image: Image.Image) -> np.ndarray:
            decoded.release()
            return np.asarray(image)

        def wait(done: int) -> None:
            assert go_on.wait(timeout=60)

        # Two threads decode 8 images ahead: all.
        stream = streamed(probe, preprocess, tmp_path / "i.npy", size=1, threads=2, progress=wait)
        next(stream)
        assert all(decoded.acquire(timeout=60) for _ in probe.ids)
        Timer(0.2, go_on.set).start()
        stream.close()
        assert list(tmp_path.glob("*.npy")) == []

    def test_an_image_that_does_not_decode_ends_it(self, tmp_path):
        broken = samples(0, 1) | {
            "bad": sample(2, png=encoded(2)[:60]),
            "worse": sample(3, png=b""),
        }
        probe = opened(write_probe(tmp_path / "p", broken))
        with pytest.raises(ProbeError, match="2 of 4 images do not decode"):
            list(streamed(probe, np.asarray, tmp_path / "images.npy", size=2))
        assert not (tmp_path / "images.npy").exists()

    def test_more_threads_change_nothing(self, root, tmp_path):
        probe = opened(root)
        for threads in (1, 3):
            materialise(probe, np.asarray, tmp_path / f"{threads}.npy", threads=threads)
        assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "3.npy").read_bytes()


class TestPairsWithoutACount:
    """Shards of images and captions as tools that download them write them: img2dataset's."""

    @pytest.fixture
    def pairs(self, tmp_path: Path):
        def write(*names: str, folder: str = "") -> Path:
            for at, name in enumerate(names):
                pair = {"jpg": encoded(at, kind="JPEG"), "txt": b"a cat", "json": b'{"url": "x"}'}
                write_shard(tmp_path / folder / name, {f"{at:05d}0000": pair})
            return tmp_path

        return write

    def ids(self, root: Path, split: str, role: str = "proxy") -> list[str]:
        return list(opened(root, role=role, split=split).ids)

    def test_all_shards_of_a_folder_are_read_in_the_order_of_their_numbers(self, pairs):
        root = pairs("00000.tar", "00001.tar", "00002.tar")
        (root / "00000_stats.json").write_text("{}")
        (root / "._00000.tar").touch()
        assert self.ids(root, ".") == ["000000000", "000010000", "000020000"]
        assert self.ids(root, ".", role="retrieval") == self.ids(root, ".")
        assert look_at_probe(
            name="p", role="proxy", source=f"webdataset:{root}", split=".", base_dir=root
        ) == {"shards": 3}  # fmt: skip

    def test_ten_come_after_nine(self, pairs):
        root = pairs(*(f"{at}.tar" for at in range(11)), folder="train")
        assert self.ids(root, "train")[-2:] == ["000090000", "000100000"]

    def test_a_split_may_be_in_the_names_of_shards(self, pairs):
        root = pairs("cc3m-train-0000.tar", "cc3m-train-0001.tar", "cc3m-validation-0000.tar")
        assert self.ids(root, "train") == ["000000000", "000010000"]
        assert self.ids(root, "cc3m-validation") == ["000020000"]

    @pytest.mark.parametrize(
        ("names", "split", "complaint"),
        [
            (["0.tar", "2.tar"], ".", "lacks the shard before 2.tar, or holds it twice"),
            (["0.tar", "00.tar"], ".", "holds it twice"),
            (["5.tar", "6.tar"], ".", "lacks the shard before 5.tar"),
            (["a0.tar", "b0.tar"], ".", "holds shards a, b..."),
            (["0.tar", "more.tar"], ".", "holds more.tar, which has no number"),
            (["train-0.tar"], "rain", "no split 'rain'"),
        ],
    )
    def test_shards_of_which_some_would_go_unread_are_refused(self, pairs, names, split, complaint):
        with pytest.raises(ProbeError, match=complaint):
            self.ids(pairs(*names), split)

    def test_what_is_evaluated_by_class_has_to_say_how_many_there_are(self, root):
        (root / "test" / "nshards.txt").unlink()
        with pytest.raises(ProbeError, match=r"nshards\.txt"):
            opened(root)


# -- headers ------------------------------------------------------------------------------------


def archive(tmp_path: Path, names, form: int, **changes: object) -> Path:
    """Write files of 0, 1, 2 ... times 300 bytes, the last with other fields of its header."""
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=form) as written:
        for index, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * index
            for field, value in (changes if name == names[-1] else {}).items():
                setattr(info, field, value)
            content = io.BytesIO(bytes(300 * index)) if info.isreg() else None
            written.addfile(info, content)
    return path


FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@pytest.mark.parametrize("form", FORMS)
def test_headers_of_plain_files_are_read_as_tarfile_reads_them(tmp_path, form):
    path = archive(tmp_path, ["a.png", "b/c d.cls", "e" * 100, "f.json"], form)
    with tarfile.open(path) as read:
        members = [(one.name, one.offset_data, one.size) for one in read.getmembers()]
    assert plain_files(path) == members


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {"type": tarfile.DIRTYPE, "size": 0},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "a.png", "size": 0},
        {"type": tarfile.AREGTYPE},
        {"type": tarfile.FIFOTYPE, "size": 0},
        {"name": "folder/" * 20 + "a.png"},
        {"name": "\xe4.png"},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_other_headers_are_left_to_tarfile(tmp_path, form, changes):
    assert plain_files(archive(tmp_path, ["a.png", "b.png"], form, **changes)) is None


@given(at=st.integers(0, 4095), byte=st.integers(0, 255))
def test_a_damaged_header_is_never_read_as_another(tmp_path_factory, at, byte):
    """Whatever one byte becomes: what is said is what tarfile says."""
    path = archive(tmp_path_factory.mktemp("tar"), ["a.png", "b.cls", "c.json"], FORMS[0])
    content = bytearray(path.read_bytes())
    content[at] = byte
    path.write_bytes(content)
    found = plain_files(path)
    if found is not None:
        with tarfile.open(path) as read:
            assert found == [(one.name, one.offset_data, one.size) for one in read.getmembers()]


def test_an_archive_that_ends_within_a_file_or_a_header_is_left_to_tarfile(tmp_path):
    path = archive(tmp_path, ["a.png", "b.png", "c.png"], FORMS[0])
    content = path.read_bytes()
    for length in (1100, 1600, 1024 + 512 + 100, 100, 0):
        path.write_bytes(content[:length])
        assert plain_files(path) is None
