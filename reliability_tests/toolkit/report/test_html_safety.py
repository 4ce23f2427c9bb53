"""Whatever names, paths and messages say, the report stays inert; and it cannot go online."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from urllib.parse import quote

import pytest
from browsing import change_fragment
from made_results import made_result

from clipq.records import KernelResult, RunRecord
from clipq.report.html import html
from clipq.verdicts import Verdict
from clipq.web import embed

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</SCRIPT ><img src=x onerror=alert(3)>",
    "<!--<script>alert(4)</script>-->",
    "<!-- ",
    "]]><svg onload=alert(5)>",
    "\"><img src=x onerror=alert(6)>",
    "' autofocus onfocus='alert(7)",
    "<iframe src=javascript:alert(8)></iframe>",
    "javascript:alert(9)",
    "<a href='javascript:alert(10)'>x</a>",
    "</title><script>alert(11)</script>",
    "</style><style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<base href=https://example.org/>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<form action=https://example.org><button>go</button></form>",
    "<object data=https://example.org></object>",
    "&lt;script&gt;alert(12)&lt;/script&gt;",
    "${alert(13)}{{alert(14)}}<%= alert(15) %>",
    "$state $$ ${title}",
    "\u2028alert(16)\u2029",
    "\x00\x1b[31m\u202eevil",
    "__proto__",
    "constructor",
    "../../etc/passwd?<&>#=%00",
    "half a pair: \ud800",
    "<details open ontoggle=alert(17)>",
]  # fmt: skip


def hostile_run() -> RunRecord:
    """A record in which every text that comes from outside is a payload."""
    figures = {
        "calibration": {"samples": [5] * 15, "confidence": [0.5] * 15, "accuracy": [0.4] * 15},
        "groups": {text: {"samples": 4, "top1": 0.5, "ece": 0.1} for text in HOSTILE},
        "detection": {
            text: {"range": [0, 1], "inside": [1] * 32, "outside": [2] * 32, "fpr": [0, 1],
                   "tpr": [0, 1]}
            for text in HOSTILE
        },
        "spectrum": {"rank": [1, 2, 3], "signal": [3, 2, 1], "residual": [0.1, 0.1, 0.2]},
    }  # fmt: skip
    evidence = {
        "models": {text: {"source": text, text: text} for text in HOSTILE},
        "baselines": {text: {"file": text, "reason": text} for text in HOSTILE},
        "probes": {text: {"role": text, "samples": 3} for text in HOSTILE},
        "quantizers": {f"{t}/{t}": {"weight_bits": 4.0, "uncovered": [t], t: t} for t in HOSTILE},
        "environments": {text: {text: text} for text in HOSTILE},
        "predictions": {f"{t}/{t}/{t}": {"sha256": t, "key": t} for t in HOSTILE},
        "figures": {f"{t}/{q}/{t}": figures for t in HOSTILE for q in ("fp32", t)},
    }
    cases = [
        made_result(
            text, text, text, text, Verdict.FAIL, text, text, "lower", 1, 10, 0.1, 0.4, 0.3, 0.1,
            text, evidence=evidence if not index else {}, low=0.2, high=0.4,
        )
        for index, text in enumerate(HOSTILE)
    ]  # fmt: skip
    return RunRecord(
        "ci", 99, tuple(cases), tuple(HOSTILE), {text: text for text in HOSTILE},
        {text: text for text in HOSTILE}, {"seconds": 1.0}, tuple(HOSTILE), {},
        tuple(KernelResult(t, t, "not-run", t, t, t) for t in HOSTILE),
        started=HOSTILE[0],
        commit={"sha": HOSTILE[1], "subject": HOSTILE[0], "branch": HOSTILE[2], "dirty": True},
        waivers=tuple({"owner": text, text: text} for text in HOSTILE),
        problems=tuple(HOSTILE),
    )  # fmt: skip


def test_markup_in_every_text_is_inert(open_report):
    page = open_report(hostile_run(), reduced_motion="reduce")
    page.evaluate(
        "() => document.querySelectorAll('details').forEach((node) => { node.open = true; })"
    )
    shown = page.evaluate("document.body.textContent")
    for text in HOSTILE:
        assert text.replace("\ud800", "\ufffd") in shown.replace("\ud800", "\ufffd"), text
    for index in range(len(HOSTILE)):
        page.locator("[data-pair]").nth(index).click()
        page.locator("#rows .opener").nth(index).click()
        assert page.locator("#detail").count() == 1
        page.locator("#figures").get_by_label("score").select_option(index=index)
    foreign = "script:not(#record), img, iframe, object, embed, base, form[action], video, audio"
    assert page.locator(foreign).count() == 1  # the page's own script
    assert page.locator("link, meta, style").count() == 6
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((node) => [...node.attributes])"
        ".map(({ name, value }) => [name, value])"
    )
    assert [name for name, _ in attributes if name.startswith("on")] == []
    links = [value for name, value in attributes if name in ("href", "src", "action", "xlink:href")]
    assert [link for link in links if not link.startswith(("#", "data:,"))] == []


def test_a_link_that_holds_markup_is_inert_too(open_report):
    case = made_result("m", "q", "p", "x", Verdict.PASS, loss=0.1, margin=1.0)
    page = open_report(RunRecord("ci", 1, (case,)))
    for text in HOSTILE:
        fragment = "&".join(
            f"{key}={quote(text.encode('utf-8', 'replace'), safe='')}"
            for key in ("case", "pair", "figures", "model", "verdict", "find", "sort")
        )
        change_fragment(page, fragment)
        assert page.locator("#listing").inner_text() == "No case matches.", text
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_data_cannot_leave_their_element(text):
    embedded = embed({text: [text]})
    assert embedded.isascii()
    assert not set(embedded) & set("<>&")
    assert json.loads(embedded) == {text: [text]}


def test_nan_never_reaches_the_page():
    with pytest.raises(ValueError):
        embed({"value": float("nan")})


def test_the_policy_allows_this_style_and_this_script_and_nothing_else():
    text = html(RunRecord("ci", 0, ()))
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text).group(1)
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        content = re.search(f"<{tag}>(.*)</{tag}>", text, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_browser_refuses_what_the_policy_does_not_allow(open_report):
    text = html(RunRecord("ci", 0, ()))
    injected = text.replace("<body>", "<body><p id='proof'>still here</p>", 1)
    page = open_report(injected)
    refused = page.evaluate(
        "() => { try { document.getElementById('proof').innerHTML = '<b>x</b>'; return false; }"
        " catch (error) { return error instanceof TypeError; } }"
    )
    assert refused
    assert page.inner_text("#proof") == "still here"
    assert any("TrustedHTML" in message for message in open_report.wrong)
    open_report.wrong.clear()
