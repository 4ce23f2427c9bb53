"""`clipq probe` says whether probes are what they should be."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[3]


def test_good_probes_are_described_and_drawn(project):
    done = project.clipq("probe", "check", "--sheets", "sheets")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("id: good", "16, 128 to 128 samples each", "groups", "3 of 3 probes are good"):
        assert words in done.stdout
    for name in ("id", "calibration", "digits"):
        with Image.open(project.root / "sheets" / f"{name}.png") as sheet:
            assert sheet.size[1] > 500


def test_the_list_says_what_each_is_for(project):
    done = project.clipq("list", "probes")
    assert done.returncode == 0
    assert "activation ranges and the temperature; never evaluated on" in done.stdout


def test_leaking_and_damaged_probes_are_named_and_the_others_checked(project):
    data = project.root / "data"
    shutil.copytree(REPOSITORY / "fixtures" / "data", data)
    (data / "SHA256SUMS").unlink()
    shard = next((data / "digits").rglob("0.tar"))
    shard.write_bytes(shard.read_bytes()[:20_000])
    path = project.settings(data=data)
    path.write_text(path.read_text().replace('split = "calibration"', 'split = "test"'))
    done = project.clipq("probe", "check")
    assert done.returncode == 1
    assert "id: WRONG" in done.stdout
    assert "shares 2,048 images" in done.stdout
    assert "digits: WRONG" in done.stdout
    assert "calibration: good" in done.stdout
    assert "1 of 3 probes are good" in done.stdout


def test_an_unknown_probe_is_suggested(project):
    done = project.clipq("probe", "check", "digit")
    assert done.returncode == 2
    assert "did you mean 'digits'" in done.stderr
