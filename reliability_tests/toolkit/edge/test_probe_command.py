"""`clipq probe` says whether probes are what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from clipq.cli.main import main

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


def _photos(folder: Path, images: dict[str, range]) -> None:
    for name, shades in images.items():
        (folder / name).mkdir(parents=True)
        for shade in shades:
            Image.new("RGB", (8, 8), (shade, len(name), 0)).save(folder / name / f"{shade}.png")


def _declare(root: Path, *probes: tuple[str, str, str], before: str = "") -> None:
    """Write settings of probes that are class folders: name, role and folder of each."""
    text = "".join(
        f'[[probes]]\nname = "{name}"\nrole = "{role}"\nsource = "folder:{folder}"\nsplit = "."\n'
        for name, role, folder in probes
    )
    (root / "clipq.toml").write_text(before + text)


def test_data_alone_are_checked_and_every_shared_image_is_listed(tmp_path, monkeypatch, capsys):
    _photos(tmp_path / "photos", {"cat": range(15), "puppy": range(15)})
    _photos(tmp_path / "fit", {"cat": range(5, 100), "puppy": range(11, 30)})
    _photos(tmp_path / "other", {"x": range(60)})
    _declare(
        tmp_path,
        ("id", "in-distribution", "photos"),
        ("fit", "calibration", "fit"),
        ("other", "ood", "other"),
    )
    monkeypatch.chdir(tmp_path)
    assert main(["probe", "check", "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "in-distribution probe 'id' shares 14 images with 'fit'" in shown
    assert "cat/10.png = cat/10.png; cat/11.png = cat/11.png; " in shown
    assert "; and 11 more" in shown
    assert "2 of 3 probes are good, 1 of them with remarks" in shown
    assert "whose 30 samples are too few for a verdict" in shown

    assert main(["probe", "check", "id", "--json", "--quiet"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    (leak,) = found["shared"]
    assert leak["with"] == "fit"
    assert len(leak["images"]) == 14
    assert {"ids": ["puppy/11.png"], "other": ["puppy/11.png"]} in leak["images"]

    settings = tmp_path / "clipq.toml"
    settings.write_text(settings.read_text().replace("folder:fit", "folder:other"))
    assert main(["probe", "check", "id", "--json", "--quiet"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert any("30 samples are too few" in remark for remark in found["remarks"])
    assert found["facts"]["passes margins"] == "none: too few samples for a verdict"
    assert main(["list", "cases"]) == 2  # of what there is none without models
    assert "models" in capsys.readouterr().err


def test_what_a_metric_needs_is_listed(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    assert main(["list", "metrics"]) == 0
    assert "labels, groups of 10" in capsys.readouterr().out


def test_labels_and_prompts_that_are_not_what_they_seem_are_named(tmp_path, monkeypatch, capsys):
    _photos(tmp_path / "photos", {"Star": range(15), "star": range(15, 30), "owl": range(15)})
    _photos(tmp_path / "fit", {"owl": range(40, 80), "star": range(40, 80)})
    _photos(tmp_path / "odd", {"owl": range(100, 120), "hen": range(100, 120)})
    (tmp_path / "photos" / "zeroshot_classification_templates.txt").write_text(
        "a {c}\n" + "a photo of the very " + "very " * 15 + "small {c}\n"
    )
    model = REPOSITORY / "fixtures" / "models" / "vit-clean"
    text = f'[[models]]\nname = "vit"\nsource = "local-dir:{model}"\n'
    roles = {"photos": "in-distribution", "fit": "calibration", "odd": "shift"}
    _declare(tmp_path, *((name, role, name) for name, role in roles.items()), before=text)
    monkeypatch.chdir(tmp_path)
    assert main(["probe", "check", "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "odd: WRONG\n  probe 'odd': class 'hen': no class" in shown
    assert "no sample of 1 of 3 classes ('Star')" in shown
    assert "vit: classes 'Star' = 'star' are the same tokens" in shown
    assert "vit: 3 of 6 prompts are longer than the 16 tokens" in shown
    assert "2 of 3 probes are good" in shown
