"""What lies beside a probe's samples and is not read: counted, named, and refused where it is much.

Files become samples by torchvision's own rule, which every test here holds clipq to.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from webdataset.tariterators import tar_file_expander

import clipq
from clipq.cli import baseline
from clipq.data import facts_of_files, look_at_probe, open_declared, remarks_on_files
from clipq.data.image_names import IMAGES
from clipq.data.shards import open_shard
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError
from clipq.gating import approve
from clipq.settings import ProbeSettings, load_settings

FORMATS = ("png", "bmp", "tiff", "gif", "ppm", "jpg", "webp")


def picture(seed: int, kind: str = "png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "jpeg"}.get(kind, kind))
    return stream.getvalue()


def write(root: Path, *files: str) -> Path:
    """Write pictures, of which the ending says the format, below `root`/d/test."""
    for number, file in enumerate(files):
        path = root / "d" / "test" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix[1:].lower()
        path.write_bytes(picture(number, kind if kind in FORMATS else "png"))
    return root / "d" / "test"


def opened(root: Path, **changes):
    declared = ProbeSettings("p", "shift", "folder:d", passed_over=1.0)
    return open_declared(replace(declared, **changes), base_dir=root)


def theirs(folder: Path) -> list[str]:
    found = (Path(path).relative_to(folder).as_posix() for path, _ in ImageFolder(folder).samples)
    return sorted(found)


def test_endings_are_torchvision_s():
    assert sorted(f".{ending}" for ending in IMAGES) == sorted(IMG_EXTENSIONS)


class TestFolders:
    def test_pictures_of_every_format_are_those_that_torchvision_reads(self, tmp_path):
        endings = (".png", ".PNG", ".bmp", ".tiff", ".tif", ".gif", ".ppm", "")
        names = [f"{c}/{n}{e}" for c in ("cat", "dog") for n in "01" for e in endings]
        folder = write(tmp_path, *names)
        probe = opened(tmp_path)
        assert sorted(probe.ids) == theirs(folder)
        assert len(probe) == 24
        assert len(list(probe.images())) == 24
        assert str(probe.passed_over) == (
            "8 of 32 files may be pictures and are not read (4 .gif, 4 without an ending): "
            "cat/0, cat/0.gif, cat/1, cat/1.gif, dog/0 and 3 more"
        )
        with pytest.raises(
            ProbeError, match=r"8 of 32 files [\s\S]*passed_over = 0\.25 in .*0\.01"
        ):
            opened(tmp_path, passed_over=ProbeSettings("p", "shift").passed_over)
        assert len(opened(tmp_path, passed_over=0.25)) == 24

    def test_what_is_meant_to_lie_beside_images_is_named_and_never_refused(self, tmp_path):
        names = ("cat/a.png", "dog/b.jpg")
        folder = write(tmp_path, *names, "cat/._a.png", "cat/.ipynb_checkpoints/a.png")
        for file in ("cat/a.npy", "cat/a.png.meta", "cat/Thumbs.db", "dog/README", ".DS_Store"):
            (folder / file).touch()
        probe = opened(tmp_path, passed_over=0.0)
        assert probe.ids == names
        assert remarks_on_files(probe) == []
        ((_, text),) = facts_of_files(probe)
        assert text == (
            "7 files beside the images are not read (3 hidden, 1 .db, 1 .meta, 1 .npy, "
            "1 without an ending), first .DS_Store"
        )

    def test_files_that_no_image_can_be_are_never_refused_whatever_they_are_called(self, tmp_path):
        folder = write(tmp_path, "cat/a.png", "dog/b.jpg")
        contents = {
            "labels.pkl": b"\x80\x05\x95",
            "images.tar.gz": b"\x1f\x8b\x08",
            "feats.npz": b"PK\x03\x04",
            "model.pt": b"PK\x03\x04",
            "Dockerfile": b"FROM scratch\n",
            "LICENSE-CC": b"Creative Commons",
            "CITATION.cff": b"cff-version: 1.2.0\n",
            "README": b"BM, P6 and II stand for makers\n",
            "cat/a_mask.mat": b"MATLAB 5.0 MAT-file",
            "cat/clip.mp4": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00",
            "cat/empty": b"",
        }
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        os.mkfifo(folder / "cat" / "pipe")  # would be waited for
        (folder / "cat" / "lost").symlink_to("nowhere")
        probe = opened(tmp_path, passed_over=0.0)
        assert sum(count for _, count in probe.passed_over.beside) == len(contents) + 2

    def test_images_are_known_by_their_first_bytes_in_every_format_whatever_they_are_called(
        self, tmp_path
    ):
        folder = write(tmp_path, "cat/a.png", "dog/b.jpg")
        (folder / "cat" / "scan").write_bytes(bytes(128) + b"DICM" + bytes(200))
        for number, kind in enumerate((*FORMATS, "jpeg2000", "avif", "dds")):
            (folder / "cat" / f"x{number}.txt").write_bytes(picture(number, kind))
        assert opened(tmp_path).passed_over.pictures == ((".txt", 10), ("without an ending", 1))

    def test_a_file_that_cannot_be_read_may_be_anything(self):
        def head(name):
            raise PermissionError(name)

        assert PassedOver.of(["cat/1"], ["cat/1.png"], head=head).share == 0.5

    def test_the_layout_s_own_files_are_not_passed_over(self, tmp_path):
        folder = write(tmp_path, "cat/a.png", "dog/b.png")
        own = {"classnames.txt": "cat\ndog", "attributes.csv": "file,tone\n"}
        own |= {"zeroshot_classification_templates.txt": "a {c}"}
        own |= {"classmap.csv": "class,head_class\ncat,cat\ndog,dog\n"}
        for name, text in own.items():
            (folder / name).write_text(text)
        rest = {"source": "folder:d/test", "split": ".", "passed_over": 0.0}
        assert facts_of_files(opened(tmp_path, **rest)) == []
        # Where the split is a folder below, nobody reads them there.
        assert opened(tmp_path).passed_over.beside == ((".csv", 2), (".txt", 2))

    @pytest.mark.parametrize("folder", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git"])
    def test_hidden_folders_are_no_classes(self, tmp_path, folder):
        write(tmp_path, "cat/a.png", "dog/b.png", f"{folder}/c.png")
        probe = opened(tmp_path, role="in-distribution", passed_over=0.0)
        assert (probe.classnames, probe.ids) == (("cat", "dog"), ("cat/a.png", "dog/b.png"))
        assert f"{folder}/" in facts_of_files(probe)[0][1]

    def test_pictures_beside_the_class_folders_are_missed(self, tmp_path):
        write(tmp_path, "cat/a.png", "dog/b.png", "loose.png")
        (remark,) = remarks_on_files(opened(tmp_path))
        assert remark.startswith("1 of 3 files may be pictures")
        with pytest.raises(ProbeError, match=r"loose\.png"):
            opened(tmp_path, passed_over=0.01)

    def test_links_to_folders_are_followed_as_torchvision_does(self, tmp_path):
        folder = write(tmp_path, "cat/a.png", "dog/b.png")
        elsewhere = write(tmp_path / "elsewhere", "more/c.png", "owls/d.png")
        (folder / "cat" / "more").symlink_to(elsewhere / "more")
        (folder / "owl").symlink_to(elsewhere / "owls")
        assert sorted(opened(tmp_path).ids) == theirs(folder)
        assert "cat/more/c.png" in opened(tmp_path).ids
        assert look_at_probe(
            name="p", role="shift", source="folder:d", split="test", base_dir=tmp_path
        ) == {"classes": 3, "images": 4}

    @pytest.mark.parametrize("target", ["cat", "cat/deep", ".", "dog"])
    def test_links_in_a_circle_are_refused(self, tmp_path, target):
        folder = write(tmp_path, "cat/deep/a.png", "dog/b.png")
        (folder / "cat" / "deep" / "link").symlink_to(folder / target)
        (folder / "dog" / "back").symlink_to(folder / "cat")
        with pytest.raises(ProbeError, match="which holds it"):
            opened(tmp_path)

    @pytest.mark.parametrize("target", [".", "..", "../.."])
    @pytest.mark.parametrize("link", ["cat/up", "up"])
    def test_a_link_to_what_holds_the_split_is_named_and_not_followed(self, tmp_path, link, target):
        folder = write(tmp_path, "cat/a.png", "dog/b.png")
        (folder / link).symlink_to((folder / target).resolve())
        with pytest.raises(ProbeError, match=re.escape(f"{folder / link} links to ")):
            opened(tmp_path)

    def test_a_broken_link_is_no_reason_to_lose_a_sample(self, tmp_path):
        folder = write(tmp_path, "cat/a.png", "dog/b.png")
        (folder / "cat" / "c.png").symlink_to("lost.png")
        with pytest.raises(ProbeError, match=r"c\.png cannot be read"):
            opened(tmp_path)
        (folder / "cat" / "c.png").unlink()
        (folder / "cat" / "c.png").symlink_to("c.png")  # to itself
        with pytest.raises(ProbeError, match=r"c\.png cannot be read"):
            opened(tmp_path)

    @pytest.mark.parametrize("name", [b"caf\xe9/a.png", b"cat/caf\xe9.png"])
    def test_names_that_are_not_utf_8_are_refused_with_the_way_out(self, tmp_path, name):
        write(tmp_path, "cat/a.png", "dog/b.png", os.fsdecode(name))
        with pytest.raises(ProbeError, match=r"are not UTF-8, first .*caf[\s\S]*convmv") as caught:
            opened(tmp_path)
        str(caught.value).encode()

    def test_callers_of_the_api_are_told_as_well(self, tmp_path, monkeypatch):
        write(tmp_path, "cat/a.png", "dog/b.gif")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ProbeError, match=r"1 of 2 files may be pictures .*b\.gif"):
            clipq.open_probe("folder:d", role="ood")


def write_shard(root: Path, members: dict[str, bytes]) -> Path:
    folder = root / "d" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    (folder / "nshards.txt").write_text("1")
    (root / "d" / "classnames.txt").write_text("cat\ndog")
    (root / "d" / "zeroshot_classification_templates.txt").write_text("a {c}")
    return folder / "0.tar"


GOOD = {
    "a.png": picture(0),
    "a.cls": b"\xef\xbb\xbf0",  # as Windows' editor writes it
    "b.BMP": picture(1, "bmp"),
    "b.cls": b"1",
}


class TestShards:
    def test_members_that_no_sample_holds_are_named_and_refused(self, tmp_path):
        write_shard(tmp_path, GOOD | {"__x__/c.png": picture(2), "__x__/c.cls": b"0"})
        with pytest.raises(ProbeError, match=r"1 of 3 files may be pictures .*0\.tar/__x__/c\.png"):
            opened(tmp_path, source="webdataset:d", passed_over=0.01)
        probe = opened(tmp_path, source="webdataset:d")
        assert (probe.ids, probe.labels.tolist()) == (("a", "b"), [0, 1])
        assert probe.passed_over.beside == ((".cls", 1),)

    def test_what_belongs_to_a_sample_or_to_a_system_is_named_and_never_refused(self, tmp_path):
        beside = ("a.seg.png", "a.gif", "__MACOSX/._a.png", "._a.png", ".DS_Store", "x/.b.png")
        first, *rest = GOOD.items()
        members = dict([first, *((name, b"0") for name in beside[:2]), *rest])
        write_shard(tmp_path, members | dict.fromkeys(beside[2:], b"0"))
        probe = opened(tmp_path, source="webdataset:d", passed_over=0.0)
        assert probe.ids == ("a", "b")
        assert probe.passed_over.beside == (("hidden", 4), (".gif", 1), (".seg.png", 1))

    @pytest.mark.parametrize("role", ["shift", "retrieval"])
    def test_texts_of_the_whole_shard_are_no_samples(self, tmp_path, role):
        texts = {"README.md": b"# Owls", "index.json": b"{}", "README": b"owls"}
        if role == "shift":  # of captions it may be one without its image
            texts["manifest.txt"] = b"a\nb"
        captions = {"a.txt": b"a cat"}, {"b.txt": b"a dog"}
        members = list(GOOD.items())
        pairs = [*members[:2], *captions[0].items(), *members[2:], *captions[1].items()]
        write_shard(tmp_path, dict([*list(texts.items())[:2], *pairs, *list(texts.items())[2:]]))
        probe = opened(tmp_path, source="webdataset:d", role=role, passed_over=0.0)
        assert probe.ids == ("a", "b")
        assert len(list(probe.images())) == 2
        assert sum(count for _, count in probe.passed_over.beside) == len(texts)

    @pytest.mark.parametrize(
        ("members", "complaint"),
        [
            ({"c.cls": b"0", "c.json": b"{}"}, r"'c' .*: 0 images among its members"),
            ({"c.png": picture(3)}, "'c' .*: no label"),
            (
                {"c.gif": b"GIF89a", "c.json": b"{}"},
                r"1 of 3 files may be pictures .*0\.tar/c\.gif",
            ),
            ({"c.bin": picture(3)}, r"1 of 3 files may be pictures .*0\.tar/c\.bin"),
            ({"__x__/c": picture(3)}, r"1 of 3 files may be pictures .*__x__/c"),
            ({"a.json": b"{}"}, "'a' occurs 2 times .*"),  # apart from its image
        ],
    )
    def test_what_is_left_of_a_sample_is_never_passed_over_in_silence(
        self, tmp_path, members, complaint
    ):
        write_shard(tmp_path, GOOD | members)
        with pytest.raises(ProbeError, match=complaint):
            opened(tmp_path, source="webdataset:d", passed_over=0.01)

    def test_webdataset_and_the_account_agree_on_every_member(self, tmp_path):
        names = "a.png __x__ __x__/b.png __x__y/c.png x/__y__/d.png e f/g .h.png i/.j.png k.l/m.png"
        odd = ["n\n/o.png", "p.\nq/r.png", "s./t.png", "u..png", "x/v.png.", "...", "w. .png"]
        members = [*names.split(), *odd]
        path = write_shard(tmp_path, dict.fromkeys(members, b"x"))
        shard = open_shard(path, None)
        read = {
            f"{sample['__key__']}.{kind}"
            for sample in shard.samples()
            for kind in sample
            if not kind.startswith("__")
        }
        assert read | set(shard.unread) == set(members)
        assert not read & set(shard.unread)
        with path.open("rb") as stream:
            theirs = {
                one["fname"] for one in tar_file_expander([{"url": "", "stream": stream}]) if one
            }
        assert read <= theirs

    def test_the_same_key_written_two_ways_is_refused(self, tmp_path):
        write_shard(tmp_path, GOOD | {"./a.png": picture(0), "./a.cls": b"0"})
        with pytest.raises(ProbeError, match=r"'a' and '\./a', which are the same"):
            opened(tmp_path, source="webdataset:d")

    def test_member_names_that_are_not_utf_8_are_refused(self, tmp_path):
        name = b"caf\xe9".decode(errors="surrogateescape")
        write_shard(tmp_path, GOOD | {f"{name}.png": picture(2), f"{name}.cls": b"0"})
        with pytest.raises(ProbeError, match=r"1 names in .* are not UTF-8, first 'caf"):
            opened(tmp_path, source="webdataset:d")

    def test_a_caption_that_says_nothing_is_refused_where_captions_are_asked_for(self, tmp_path):
        write_shard(
            tmp_path, {"a.png": picture(0), "a.txt": b"a cat", "b.png": picture(1), "b.txt": b" "}
        )
        with pytest.raises(ProbeError, match=r"row 1 .*sample 'b'\) has the caption ''"):
            opened(tmp_path, source="webdataset:d", role="retrieval")


def test_an_account_counts_everything_and_shows_little():
    account = PassedOver.of([f"{n:03d}.gif" for n in range(300)], [f"{n}.png" for n in range(100)])
    assert account.share == 0.75
    assert str(account).endswith("000.gif, 001.gif, 002.gif, 003.gif, 004.gif and 295 more")
    assert str(PassedOver.of([], ["a.png"])) == "every file is read"
    head = {"img.2.npy": picture(0)}.__getitem__
    assert PassedOver.of(["img.2.npy"], ["img.1.png"], head=head).share == 0.5  # not of img.1


SETTINGS = """
[[models]]
name = "m"
source = "ViT-B-32/none"

[[probes]]
name = "id"
role = "in-distribution"
source = "folder:d"
passed_over = 0.4

[[probes]]
name = "calibration"
role = "calibration"
source = "folder:c"

[matrix]
quantizers = ["rtn:w8a8"]
"""


def test_a_run_warns_and_a_baseline_names_every_file(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path, "cat/a.png", "dog/b.png", "dog/c.gif")
    (folder / "dog" / "notes.txt").write_text("owls")
    for name, seed in (("cat/a.png", 7), ("dog/b.png", 8)):
        path = tmp_path / "c" / "test" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(seed))
    (tmp_path / "c" / "test" / "cat" / "Thumbs.db").touch()
    (tmp_path / "clipq.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "clipq.toml")
    # FP32 itself is not needed to open the probes.
    monkeypatch.setattr(approve, "measure", lambda evaluator, model: evaluator.inputs.probes)
    with pytest.warns(UserWarning, match=r"'id': 1 of 3 files may be pictures .*dog/c\.gif"):
        baseline._measured(settings, "m", Namespace(quiet=True))
    said = capsys.readouterr().out
    assert "m: probe 'id': 1 of 3 files may be pictures and are not read (1 .gif)" in said
    assert "m: probe 'calibration': 1 file beside the images is not read (1 .db)" in said
