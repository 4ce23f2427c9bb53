"""The study's page is one inert file; what is no study document is refused by name."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from study_documents import study_document

from clipq.errors import StudyError
from clipq.study.page_build import study_page
from clipq.study.page_packing import pack

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "$state ${title}",
    "\u2028alert(2)",
    "half a pair: \ud800",
    "<img src=x onerror=alert(3)>",
)


def renamed(document: dict, names: tuple[str, ...]) -> dict:
    """Return a document whose models, quantizers and columns have these names."""
    text = json.dumps(document)
    for old, new in zip(("vit-clean", "rtn:w8a8@vision", "top-1"), names, strict=False):
        text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
    return json.loads(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_stay_texts_whatever_they_hold(text):
    page = study_page(renamed(study_document(), (text,) * 3), title=text)
    data = re.search(r'<script id="study" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert not set(data[1]) & set("<>&")
    assert json.loads(data[1])["models"][0]["name"] == text
    assert page.count("<script") == 2
    page.encode("utf-8")


def test_the_policy_allows_this_style_and_this_script_and_nothing_else():
    page = study_page(study_document())
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        content = re.search(f"<{tag}>(.*)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_it_says_how_much_was_measured_and_answers_claims_where_scripts_do_not_run():
    page = study_page(study_document(models=2, configurations=8), title="Eight & bits")
    assert "<title>Eight &amp; bits: clipq study</title>" in page
    assert "2 models, 16 configurations, 48 units and 112 numbers" in page
    aside = re.search("<noscript>(.*)</noscript>", page, re.DOTALL)[1]
    assert aside.count("<li>") == 3
    assert "<li>C3: not reproduced</li>" in aside


def changed(change):
    document = study_document()
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema="clipq-study/2"), "schema"),
        (lambda d: d.update(kind="claims"), "kind"),
        (lambda d: d.pop("columns"), "no columns"),
        (lambda d: d.update(colour=1), "colour"),
        (lambda d: d["configurations"][3].update(model="lost"), r"configurations\[3\].*'lost'"),
        (lambda d: d["configurations"][3]["values"].update(
            lost=d["configurations"][0]["values"]["ece"]
        ), r"configurations\[3\].*'lost'"),
        (lambda d: d["configurations"][2]["values"]["ece"].update(change=float("nan")), "nan"),
        (lambda d: d["configurations"][2]["values"]["ece"].update(better="yes"), "better = 'yes'"),
        (lambda d: d["configurations"][1]["residual"].pop(), r"residual has 8 ranks"),
        (lambda d: d["configurations"].append(d["configurations"][0]), "2 times"),
        (lambda d: d["columns"][0].update(better="zero"), "better = 'zero'"),
    ],
)  # fmt: skip
def test_what_is_no_study_document_is_refused_by_name(change, said):
    with pytest.raises(StudyError, match=said):
        study_page(changed(change))


def test_packing_keeps_six_digits_of_every_number_and_stores_texts_once():
    document = study_document(models=2, configurations=32)
    plain = pack(document).plain
    for at, row in enumerate(document["configurations"]):
        assert plain["texts"][plain["configurations"]["quantizer"][at]] == row["quantizer"]
        for key, value in row["values"].items():
            cells = plain["cells"][key]
            assert cells["value"][at] == pytest.approx(value["value"], rel=1e-5)
            assert cells["sure"][at] == value["better"] - value["worse"]
            if value["change"] is None:
                assert "change" not in cells
            else:
                assert cells["change"][at] == pytest.approx(value["change"], rel=1e-5)
    assert len(set(plain["texts"])) == len(plain["texts"])


def test_a_page_of_1600_configurations_and_30_columns_has_less_than_5_megabytes():
    """Measured on a sixteenth of it: the data grow with what is measured, the script does not."""
    small, large = (
        len(study_page(study_document(models=2, configurations=n, columns=30))) for n in (25, 50)
    )
    assert small + (large - small) / 50 * (1600 - 50) < 5e6
