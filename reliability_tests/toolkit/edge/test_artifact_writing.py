"""`clipq artifact export` and `quantize`: what they write, print, refuse and replace."""

from __future__ import annotations

import tomllib

import pytest

from clipq.cli import main
from clipq.exports import MANIFEST, Made, Recipe, recipes
from clipq.settings import load_settings

RECIPE = "bytes-float"


@pytest.fixture
def quick():
    """A recipe that takes no time: its files say what it was given."""

    def write(source, folder):
        for tower in source.towers:
            text = f"{tower.kind} {tuple(tower.samples.shape)} {tower.batch}"
            (folder / f"{tower.kind}.bin").write_text(text)
        return Made("image.bin", "text.bin")

    recipes.add(RECIPE, Recipe("onnxruntime", write, format="w8a8", precision="f32"))
    yield RECIPE
    recipes.remove(RECIPE)


def test_what_is_printed_is_the_table_of_what_was_written(project, quick, capsys):
    settings, folder = project.root / "clipq.toml", project.root / "deploy" / "one"
    command = ["--config", str(settings), "artifact"]
    quantize = [*command, "quantize", "vit-clean", "--recipe", quick, "--output", str(folder)]
    assert main([*quantize, "--batch", "4", "--name", "mine"]) == 0
    printed, said = capsys.readouterr()
    table = tomllib.loads(printed)["artifacts"][0]
    assert table == {
        "name": "mine",
        "model": "vit-clean",
        "runtime": "onnxruntime",
        "image": "deploy/one/image.bin",
        "text": "deploy/one/text.bin",
        "format": "w8a8",
        "batch": 4,
        "session": {"precision": "f32"},
        "io": {
            "image_input": "pixel_values",
            "text_input": "input_ids",
        },
    }
    assert "clipq artifact check" in said
    assert (folder / "image.bin").read_text() == "image (512, 3, 32, 32) 4"
    assert (folder / "text.bin").read_text() == "text (512, 16) 4"
    project.settings(after=f"\n{printed}")
    assert [each.name for each in load_settings(settings).artifacts] == ["mine"]

    assert main(quantize) == 2
    assert "holds an artifact already\n  fix: --force" in capsys.readouterr().err
    (folder / "notes.txt").write_text("mine")
    assert main([*quantize, "--force", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert (folder / "image.bin").read_text().endswith(" 0")
    assert (folder / "notes.txt").read_text() == "mine"

    (folder / MANIFEST).unlink()
    export = [*command, "export", "vit-clean", "--runtime", "bytes", "--output", str(folder)]
    assert main([*export, "--force"]) == 2
    assert "holds files that clipq did not write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem", "fix"),
    [
        (("quantize", "vit-clean", "--recipe", "ort-static"), "unknown recipe", "did you mean"),
        (("export", "vit-clean", "--runtime", "onxruntime"), "nothing exports", "'onnxruntime'"),
        (("export", "vit-clena", "--runtime", "bytes"), "vit-clena", "did you mean 'vit-clean'"),
        (("export", "vit-clean", "--runtime", "bytes", "--batch", "-1"), "--batch -1", "0 for any"),
        (
            ("export", "vit-clean", "--runtime", "bytes", "--name", "A/b"),
            "--name A/b",
            "lower-case",
        ),
    ],
)
def test_a_slip_is_named_before_anything_is_loaded(words, problem, fix, project, quick, capsys):
    out = project.root / "deploy"
    config = ["--config", str(project.root / "clipq.toml")]
    assert main([*config, "artifact", *words, "--output", str(out)]) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert fix in said
    assert not out.exists()


def test_help_names_every_recipe_with_its_format(capsys):
    for action, floats in (("export", True), ("quantize", False)):
        with pytest.raises(SystemExit):
            main(["artifact", action, "--help"])
        text = capsys.readouterr().out
        for name in recipes.names():
            recipe = recipes.get(name)
            if (recipe.format == "") is floats:
                shown = name.removesuffix("-float") if floats else f"{name} "
                line = next(line for line in text.splitlines() if line.startswith(f"  {shown}"))
                assert floats or recipe.format in line.split()
                assert ("BROKEN" in line) == bool(recipe.broken)
