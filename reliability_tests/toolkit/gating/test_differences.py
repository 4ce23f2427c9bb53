"""What cannot be compared is said in words: which samples, classes, templates, fields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.cases import Candidate, Case
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.subject import Facts, Subject
from clipq.gating.approve import approve_first, measure, problems
from clipq.gating.baseline import load_baseline, save_baseline
from clipq.gating.comparable import Comparability
from clipq.gating.differences import Difference
from clipq.settings import load_settings
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[3]
CLASSES, TEMPLATES = ("cat", "dog"), ("a photo of a {c}", "the {c}")
FACTS = Facts(CLASSES, TEMPLATES, 100.0, 0.0, {"id": {"split": "test"}})


def samples(*names: str, **changed: object) -> dict[str, np.ndarray]:
    size = len(names)
    plain = {"label": [0] * size, "group": [""] * size, "image": list(range(size))}
    columns = {"id": list(names), **plain, **changed}
    return {name: np.array(values) for name, values in columns.items()}


def said(name: str, was: Subject, now: Subject, before: str = "0", after: str = "1") -> str:
    return Difference(was, now, "id", "id", "fit").of(name, before, after)


def of_samples(was: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> str:
    return said("probe", Subject(FACTS, {"id": was}), Subject(FACTS, {"id": now}))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (samples("a", "b", image=[0, 1]), "2 samples, not 3; missing c"),
        (samples("a", "b", "c", "d"), "4 samples, not 3; new d"),
        (samples("a", "b", "x", image=[0, 1, 2]), "missing c; new x"),
        (samples("b", "a", "c", image=[1, 0, 2]), "the same samples in another order"),
        (samples("a", "b", "c", image=[0, 9, 8]), "another image of 2 samples: b, c"),
        (samples("a", "b", "c", group=["", "x", ""]), "another group of 1 samples: b"),
        (samples("a", "b", "c", label=[0, 0, 1]), "another label of 1 samples: c is dog, was cat"),
    ],
)
def test_samples(now, expected):
    assert of_samples(samples("a", "b", "c"), now) == f"probe 'id': {expected}"


def test_many_samples_are_counted():
    names = [f"{at}.png" for at in range(1900)]
    found = of_samples(samples(*names), samples(*names[10:], image=list(range(10, 1900))))
    assert found == ("probe 'id': 1,890 samples, not 1,900; missing 0.png, 1.png, 2.png and 7 more")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classes": ("cat", "dog symbol")}, "class 'dog' is now 'dog symbol'"),
        ({"classes": ("dog", "cat")}, "the same classes in another order"),
        ({"classes": ("cat", "dog", "fox")}, "class 'fox' is new"),
        ({"classes": ("cat",)}, "class 'dog' is gone"),
        ({"templates": ("a photo of a {c}",)}, "template 'the {c}' is gone"),
        (
            {"classes": ("cat", "wolf"), "templates": ("the {c}",)},
            "class 'dog' is now 'wolf'; template 'a photo of a {c}' is gone",
        ),
    ],
)
def test_prompts(change, expected):
    found = said("prompts", Subject(FACTS, {}), Subject(replace(FACTS, **change), {}))
    assert found == expected


def test_the_rest_of_an_identity():
    was, now = Subject(FACTS, {}), Subject(replace(FACTS, logit_scale=50.0), {})
    assert said("logit_map", was, now) == "logit scale and bias are 50 and 0, were 100 and 0"
    found = said("preprocess", was, now, '{"mean":[0.5],"size":32}', '{"mean":[0.5],"size":64}')
    assert found == "preprocessing: size is 64, was 32"
    assert "the model's weights are others" in said("weights_sha256", was, now, "a" * 64, "b" * 64)
    other = Subject(replace(FACTS, probes={"id": {"split": "test", "samples": "512"}}), {})
    assert said("probe", was, other) == "probe 'id': samples is 512, was not given"


def test_a_baseline_that_keeps_hashes_alone_says_so():
    bare = Subject(None, {"id": samples("a", "b")})
    assert "no more than their hash" in said("prompts", bare, Subject(FACTS, {}))
    assert "no more than their hash" in said(
        "probe", bare, Subject(FACTS, {"id": samples("a", "b")})
    )
    shorter = Subject(FACTS, {"id": samples("a")})
    assert said("probe", bare, shorter) == "probe 'id': 1 samples, not 2; missing b"


def test_embedded_baselines_keep_their_bytes(tmp_path):
    for path in (REPOSITORY / "baselines").glob("*.safetensors"):
        save_baseline(tmp_path, load_baseline(path.parent, path.stem))
        for name in (path.name, f"{path.stem}.json"):
            assert (tmp_path / name).read_bytes() == (path.parent / name).read_bytes()


SETTINGS = """\
[matrix]
quantizers = ["rtn:w8"]
metrics = ["top1"]

[[models]]
name = "vit"
source = "local-dir:{fixtures}/models/vit-clean"
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A project of some pictures, and its baseline as it was written and read."""
    root = tmp_path_factory.mktemp("pictures")
    text = SETTINGS.format(fixtures=REPOSITORY / "fixtures")
    noise = np.random.default_rng(3)
    for name, role in (("id", "in-distribution"), ("fit", "calibration"), ("moved", "shift")):
        text += f'\n[[probes]]\nname = "{name}"\nrole = "{role}"\n'
        text += f'source = "folder:data/{name}"\nsplit = "."\nclasses = "names.txt"\n'
        for kind in ("circle", "heart"):
            folder = root / "data" / name / kind
            folder.mkdir(parents=True)
            for at in range(4):
                pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{at}.png")
    (root / "clipq.toml").write_text(text)
    (root / "names.txt").write_text("circle\nheart\n")
    evaluator = Evaluator(load_settings(root / "clipq.toml"))
    save_baseline(root / "baselines", approve_first(measure(evaluator, "vit"), date="2026-01-01"))
    return root


def test_what_was_measured_is_kept_and_differences_from_it_are_said(measured):
    baseline = load_baseline(measured / "baselines", "vit")
    assert baseline.measured_on.classes == ("circle", "heart")
    assert sorted(baseline.samples) == ["fit", "id", "moved"]
    assert sorted(baseline.samples["id"]) == ["image"]
    assert len(baseline.samples["fit"]["id"]) == 8

    def found(probe: str) -> str:
        evaluator = Evaluator(load_settings(measured / "clipq.toml"))
        case = Case.parse(f"vit/rtn:w8/{probe}.top1")
        cell = Candidate("vit", "fp32").on(probe)
        judged = Comparability(evaluator, "id", "fit").obstacle(
            case, baseline, baseline.values[case.key], evaluator.evaluate(cell)
        )
        if judged is None:
            return ""
        assert judged.verdict is Verdict.INCOMPARABLE
        return judged.reason

    assert found("id") == ""
    (measured / "data" / "moved" / "heart" / "2.png").unlink()
    assert found("moved") == "probe 'moved': 7 samples, not 8; missing heart/2.png"
    (measured / "names.txt").write_text("circle\nheart symbol\n")
    assert found("id") == "class 'heart' is now 'heart symbol'"
    evaluator = Evaluator(load_settings(measured / "clipq.toml"))
    assert any("'heart' is now" in problem for problem in problems(evaluator, baseline))
