"""Runs are named by age, number, id or commit; what is unclear or unknown lists near ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipq.errors import StoreError
from clipq.history.store import open_store


@pytest.fixture
def store(url, tmp_path, run):
    with open_store(url, root=tmp_path) as opened:
        for index in range(3):
            opened.record(run(index))
        yield opened


def test_runs_are_named_by_age(store):
    assert store.find("latest").number == 3
    assert store.find("latest~0").number == 3
    assert store.find("latest~2").number == 1
    with pytest.raises(StoreError, match=r"(?s)no run 'latest~3'.*#3"):
        store.find("latest~3")


def test_runs_are_named_by_number(store):
    assert store.find("#2").number == 2
    assert store.find(" 2 ").number == 2
    with pytest.raises(StoreError, match="no run '#9'"):
        store.find("#9")
    with pytest.raises(StoreError, match="no run '999999999999999999999'"):
        store.find("9" * 21)


def test_runs_are_named_by_the_start_of_their_id(store):
    second = store.find("#2")
    assert store.find(second.id).number == 2
    letters = next(n for n in range(4, 64) if not second.id[:n].isdigit())
    assert store.find(second.id[:letters].upper()).number == 2


def test_fewer_than_four_digits_of_an_id_name_nothing(store):
    with pytest.raises(StoreError, match="first 4 or more digits"):
        store.find("abc")


def test_runs_are_named_by_commit_and_the_newest_of_a_commit_is_meant(store, run):
    sha = run(1).commit["sha"]
    again = replace(run(1), timings={"seconds": 99.0})
    store.record(again)
    assert store.find(f"commit:{sha}").number == 4
    with pytest.raises(StoreError, match="no run 'commit:beef'"):
        store.find("commit:beef")
    with pytest.raises(StoreError, match=r"(?s)'commit:0000' names 3 runs.*#4.*#3.*#1"):
        store.find("commit:0000")


def test_a_number_that_is_also_the_start_of_an_id_is_ambiguous(store, monkeypatch):
    from clipq.history import naming

    first, second = store.find("#1"), store.find("#2")
    monkeypatch.setattr(naming, "_numbered", lambda connection, number: (second,))
    monkeypatch.setattr(naming, "run_infos", lambda connection, query: (first,))
    with pytest.raises(StoreError, match="'1234' names 2 runs"):
        store.find("1234")


@pytest.mark.parametrize("text", ["", "newest", "latest~x", "#", "commit:", "'; DROP TABLE runs"])
def test_what_names_no_run_says_how_runs_are_named(store, text):
    with pytest.raises(StoreError, match=r"(?s)names no run.*latest~2, #12"):
        store.find(text)
