"""`clipq blame` finds damage that was planted."""

from __future__ import annotations

import re
from pathlib import Path

from small_data import part

DATA = Path(__file__).parents[3] / "fixtures" / "data"
BROKEN = "visual.transformer.resblocks.1.mlp.c_fc"


def tutorial() -> str:
    """Return the tutorial's own quantizer, which rounds weights where they lie."""
    page = (DATA.parents[1] / "docs" / "tutorial" / "quantizer.md").read_text(encoding="utf-8")
    return page.split('```python title="my_quantizers.py"\n', 1)[1].split("```", 1)[0]


def damaged(project) -> str:
    """Return a case whose quantizer harms one layer only."""
    (project.root / "formats.toml").write_text(f'"{BROKEN}" = "w2t"\n')
    data = project.root / "data"
    part(DATA / "shapes", data / "shapes", {"test": 768, "calibration": 256})
    part(DATA / "digits", data / "digits", {"test": 128})
    project.settings(quantizers=("rtn:w8,table=formats.toml", "rtn:w8"), data=data)
    (project.root / "baselines" / "margins.toml").write_text(
        '[[margin]]\n[margin.metrics]\n"*" = 0.02\n'
    )
    (project.root / "baselines" / "vit-clean.json").unlink()
    created = project.clipq("baseline", "create", "--quiet")
    assert created.returncode == 0, created.stderr
    return "vit-clean/rtn:w8,table=formats.toml/id.top1"


def test_the_damaged_layer_is_named_and_kept_and_a_passing_case_left_alone(project):
    """One project for both: its baseline takes as long as looking into a quantizer."""
    case = damaged(project)
    done = project.clipq("blame", case)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"id\.top1: fail, loss \+0\.\d+ \[", done.stdout)
    first = done.stdout.split("\n")[4]
    assert first.startswith(BROKEN), done.stdout
    assert f"Keep 1 layer in float (it cannot be fewer):\n  {BROKEN}\n" in done.stdout
    assert f"rtn:w8,exclude={BROKEN},table=formats.toml\n" in done.stdout
    assert "The gate says of it: pass" in done.stdout
    again = project.clipq("blame", case, "--by", "block", "--top", "2")
    assert again.returncode == 0
    assert "Keep 1 block in float" in again.stdout
    assert "more; --all shows them" in again.stdout
    passing = project.clipq("blame", "vit-clean/rtn:w8/id.top1", "--by", "block")
    assert passing.returncode == 0
    assert "there is nothing to keep in float" in passing.stdout
    # A quantizer need not be in the matrix.
    other = project.clipq("blame", "vit-clean/rtn:w7@text/id.top1", "--by", "block", "--all")
    assert other.returncode == 0, other.stderr
    assert "visual" not in other.stdout


def test_a_quantizer_that_rounds_weights_where_they_lie_is_taken_apart(project):
    (project.root / "my_quantizers.py").write_text(tutorial())
    data = project.root / "data"
    part(DATA / "shapes", data / "shapes", {"test": 256, "calibration": 64})
    part(DATA / "digits", data / "digits", {"test": 32})
    project.settings(
        quantizers=("bf16@vision",), metrics=("sqnr",), data=data,
        extra='plugins = ["my_quantizers"]',
    )  # fmt: skip
    (project.root / "baselines" / "margins.toml").write_text(
        '[[margin]]\n[margin.metrics]\n"*" = -55\n'
    )
    (project.root / "baselines" / "vit-clean.json").unlink()
    created = project.clipq("baseline", "create", "--quiet")
    assert created.returncode == 0, created.stderr
    done = project.clipq("blame", "vit-clean/bf16@vision/id.sqnr", "--by", "block", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    # Rounding to 8 bits of mantissa leaves 57 to 61 dB here.
    rows = re.findall(r"(?m)^(visual\.\S+) .*? (\d+\.\d) dB", done.stdout)
    assert len(rows) == 6, done.stdout
    assert all(50 < float(own) < 65 for _, own in rows)
    assert "there is nothing to keep in float" in done.stdout


def test_wrong_cases_are_refused_with_a_hint(project):
    wrong = project.clipq("blame", "vit-clean/rtn:w8/id.top2")
    assert wrong.returncode == 2
    assert "no case is called" in wrong.stderr
    assert "did you mean 'vit-clean/rtn:w8/id.top1'" in wrong.stderr
    reference = project.clipq("blame", "vit-clean/fp32/id.top1")
    assert reference.returncode == 2
    assert "has no quantized layers" in reference.stderr
    typo = project.clipq("blame", "vit-clean/rtm:w8/id.top1")
    assert typo.returncode == 2
    assert "did you mean 'rtn'" in typo.stderr
    (project.root / "baselines" / "vit-clean.json").unlink()
    missing = project.clipq("blame", "vit-clean/rtn:w8/id.top1")
    assert missing.returncode == 2
    assert "clipq baseline create vit-clean" in missing.stderr
