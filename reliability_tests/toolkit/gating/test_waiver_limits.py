"""What no signature excuses: everything, for ever, or by nobody who can be read."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from clipq.errors import SettingsError
from clipq.gating.waiver_limits import legible, refuse_excess
from clipq.gating.waivers import Waiver, Waivers
from clipq.settings import LimitSettings

TODAY = datetime.date(2026, 5, 31)
MATRIX = tuple(
    f"vit/rtn:{form}/{probe}.{metric}"
    for form in ("w4", "w8")
    for probe in ("id", "ood")
    for metric in ("ece", "top1")
)
SOON = datetime.date(2026, 6, 30)


def check(*patterns: str, limits=None, expected=(), others=(), **changes) -> None:
    given = {"reason": "the pilot", "owner": "ada", "expires": SOON} | changes
    entries = (Waiver(patterns, **given), *others)
    refuse_excess(
        Waivers(Path("waivers.toml"), entries),
        limits or LimitSettings(),
        today=TODAY,
        matrix=MATRIX,
        expected=expected,
    )


@pytest.mark.parametrize(
    "patterns",
    [
        *(("*",), ("**",), ("?*",), ("*/*",), ("*/*/*",), ("vit/*",), ("[!x]*",), ("*.*",)),
        *(("vit/rtn:w?/*",), ("*ece", "*top1"), ("*/rtn:w4/*", "*/rtn:w8/*"), MATRIX),
    ],
)
def test_a_waiver_of_everything_is_refused(patterns):
    with pytest.raises(SettingsError, match="matches every case of the matrix"):
        check(*patterns)


def test_waivers_that_excuse_most_together_are_refused():
    half = Waiver(("*/rtn:w4/*",), "the pilot", "ada", SOON)
    check("*/rtn:w4/*")
    check("*/rtn:w4/id.*", expected=("*/rtn:w4/ood.ece",))
    with pytest.raises(SettingsError, match=r"5 of 8 cases are waived .* more than 50%"):
        check("vit/rtn:w8/id.ece", others=(half,))
    with pytest.raises(SettingsError, match=r"5 of 8 cases are waived or expected to fail"):
        check("*/rtn:w4/*", expected=("vit/rtn:w8/id.ece",))
    check("vit/rtn:w8/id.ece", others=(half,), limits=LimitSettings(excused_share=0.7))
    old = Waiver(("*/rtn:w4/*",), "the pilot", "ada", datetime.date(2026, 1, 1))
    check("vit/rtn:w8/id.ece", others=(old,))  # which excuses nothing any more


def test_a_waiver_ends_within_a_year():
    check("*/id.ece", expires=TODAY + datetime.timedelta(days=366))
    for late in (TODAY + datetime.timedelta(days=367), datetime.date(9999, 12, 31)):
        with pytest.raises(SettingsError, match=rf"expires on {late}, which is more than 366 days"):
            check("*/id.ece", expires=late)
    with pytest.raises(SettingsError, match="more than 30 days ahead"):
        check(
            "*/id.ece",
            expires=TODAY + datetime.timedelta(days=31),
            limits=LimitSettings(waiver_days=30),
        )


INVISIBLE = (
    *("\u200b\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u3164", "\u115f", "\u2800", "..."),
    *("ada\u202ebob", "ada\u200b", "\u0301", "\ue000", "a\x1b[2Kda", "ada\x00"),
)


@pytest.mark.parametrize("text", INVISIBLE, ids=ascii)
@pytest.mark.parametrize("key", ["owner", "reason"])
def test_who_signs_and_why_can_be_read(key, text):
    with pytest.raises(SettingsError, match=rf"{key} = .* cannot be read"):
        check("*/id.ece", **{key: text})


@pytest.mark.parametrize("text", ["ada@example.org", "Ünal", "علی", "می‌خواهم", "क्‍ष", "山田", "#7"])
def test_every_script_may_sign(text):
    assert legible(text)
    check("*/id.ece", owner=text, reason=f"two\nlines of {text}")
