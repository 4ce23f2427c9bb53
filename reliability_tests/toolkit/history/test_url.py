"""Store URLs: what is understood, what is refused, and that no password is ever shown."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from private_postgresql import PASSWORD

from clipq.errors import StoreError
from clipq.history.place import store_url
from clipq.history.store import open_store
from clipq.history.url import parse_url
from clipq.settings import HistorySettings, Settings

ROOT = Path("/project")


def test_a_relative_path_is_relative_to_the_root_and_an_absolute_one_is_not():
    assert parse_url("sqlite:///a/b.db", root=ROOT).path == Path("/project/a/b.db")
    assert parse_url("sqlite:////a/b.db", root=ROOT).path == Path("/a/b.db")
    assert parse_url("sqlite:///b.db", root=ROOT).shown == "sqlite:////project/b.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_postgresql_scheme_means_the_one_driver(scheme):
    url = parse_url(f"{scheme}://anna:p%40ss@db.example.org:5433/runs?sslmode=require", root=ROOT)
    assert url.shown == "postgresql://anna:***@db.example.org:5433/runs?sslmode=require"
    engine = url.engine_url()
    assert engine.drivername == "postgresql+psycopg"
    assert (engine.username, engine.host, engine.port) == ("anna", "db.example.org", 5433)
    assert engine.database == "runs"
    assert engine.password is None
    assert dict(url.secrets) == {"password": "p@ss"}
    assert dict(url.parameters) == {"sslmode": "require"}


def test_addresses_without_a_password_name_the_same_places():
    assert parse_url("postgresql://[::1]:5432/runs", root=ROOT).host == "::1"
    assert parse_url("postgresql:///runs?host=/tmp", root=ROOT).parameters == {"host": "/tmp"}
    assert parse_url("postgresql://%2Fvar%2Frun/runs", root=ROOT).host == "/var/run"
    assert parse_url("postgresql://anna@host/runs", root=ROOT).user == "anna"


@pytest.mark.parametrize("name", ["password", "sslpassword", "oauth_client_secret"])
def test_a_secret_parameter_is_no_parameter_of_the_engine_s_url(name):
    url = parse_url(f"postgresql://anna@host/runs?{name}=hun%26ter2", root=ROOT)
    assert dict(url.secrets) == {name: "hun&ter2"}
    assert "hun" not in repr(url) + str(url) + str(url.engine_url())
    assert f"{name}=***" in url.shown


SECRET = "hunter2-secret"
REFUSED = [
    f"mysql://anna:{SECRET}@host/runs",
    f"postgresql+psycopg2://anna:{SECRET}@host/runs",
    f"postgresql://anna:{SECRET}@x@host/runs",
    f"postgresql://anna:x/{SECRET}@host/runs",
    f"postgresql://anna:x?{SECRET}@host/runs",
    f"postgresql://anna:x#{SECRET}@host/runs",
    f"postgresql://anna:{SECRET}%zz@host/runs",
    f"postgresql://anna:{SECRET}%ff@host/runs",
    f"postgresql://anna:{SECRET}%00@host/runs",
    f"postgresql://anna:{SECRET}",
    f"postgresql://anna:{SECRET}@host",
    f"postgresql://anna:{SECRET}@host/",
    f"postgresql://anna:{SECRET}@host/a/b",
    f"postgresql://anna:{SECRET}@host:port/runs",
    f"postgresql://anna:{SECRET}@host:99999/runs",
    f"postgresql://anna:{SECRET}@ho st/runs",
    f"postgresql://anna:{SECRET}@host/runs?password={SECRET}",
    f"postgresql://anna@host/runs?password={SECRET}&password={SECRET}",
    f"postgresql://anna@host/runs?{SECRET}",
    f"postgresql://anna@host/runs?Pass Word={SECRET}",
    f"postgresql:/anna:{SECRET}@host/runs",
    f"anna:{SECRET}@host/runs",
    f"password={SECRET} host=example.org",
    SECRET,
    f"sqlite://anna:{SECRET}@host/runs.db",
    f"sqlite:///runs.db?password={SECRET}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(text):
    with pytest.raises(StoreError) as caught:
        parse_url(text, root=ROOT)
    assert caught.value.hint
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a/"])
def test_a_url_of_no_file_is_refused(text):
    with pytest.raises(StoreError, match="sqlite://"):
        parse_url(text, root=ROOT)


def test_a_mere_file_name_is_shown_with_what_to_write():
    with pytest.raises(StoreError, match=r"(?s)'runs\.db' is no store URL.*sqlite:///PATH"):
        parse_url("runs.db", root=ROOT)


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=4))
def test_any_password_survives_percent_encoding_and_is_hidden_in_any_form(password):
    url = parse_url(f"postgresql://anna:{quote(password, safe='')}@host/runs", root=ROOT)
    assert url.secrets["password"] == password
    for form in {password, quote(password), quote(password, safe=""), quote_plus(password)}:
        hidden = url.hide(f"could not connect with <{form}>, sorry")
        assert form not in hidden or form in "could not connect with <***>, sorry"


def test_a_message_that_a_short_password_cannot_be_told_from_is_withheld():
    url = parse_url("postgresql://anna:a@host/runs", root=ROOT)
    assert url.hide("a bad day") == "(a message that may hold the password is not shown)"


def test_passwords_of_other_urls_in_a_message_are_hidden_too():
    url = parse_url("sqlite:///runs.db", root=ROOT)
    shown = url.hide("tried postgresql://bob:swordfish@h/d and 'password=swordfish host=h'")
    assert "swordfish" not in shown
    assert shown == "tried postgresql://bob:***@h/d and 'password=*** host=h'"


def everything(error: BaseException) -> str:
    """Return all that a reader of an exception could see, its chain and its attributes included."""
    seen, todo, parts = set(), [error], []
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__]
        parts += [str(one), repr(one), repr(vars(one)), repr(one.args)]
        parts += traceback.format_exception(one)
    return "\n".join(parts)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What anybody logs; this repository's tests run without pytest's own capture of it."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_refused_password_is_in_no_error_log_or_repr(postgresql, logged, capsys):
    wrong = "Wr0ng/p@ss word%"
    text = postgresql.url("postgres", password=wrong)
    with pytest.raises(StoreError, match="refused the user or password") as caught:
        open_store(text, root=ROOT)
    told = everything(caught.value) + logged.getvalue() + "".join(capsys.readouterr())
    for form in (wrong, "Wr0ng", text.partition("@")[0].rpartition(":")[2]):
        assert form not in told
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "parameters", ["unknown_option=1", "sslmode=nonsense", "options=-cno_such_setting%3D1"]
)
def test_a_driver_s_refusal_is_told_without_the_password(postgresql, parameters, logged):
    refuse(f"{postgresql.url('postgres')}?{parameters}", logged)


def test_an_unreachable_server_is_told_without_the_password(postgresql, logged):
    text = postgresql.url("postgres").replace(f":{postgresql.port}/", ":1/")
    assert "nothing listens there" in refuse(text, logged)


def refuse(text: str, logged: io.StringIO) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(text, root=ROOT)
    assert PASSWORD not in everything(caught.value) + logged.getvalue()
    assert "postgresql://clipq:***@127.0.0.1" in str(caught.value)
    return str(caught.value)


def test_a_password_in_a_parameter_opens_the_store_and_is_nowhere_in_it(postgresql, run, logged):
    plain = postgresql.new_database()
    name = plain.rpartition("/")[2]
    text = (
        f"postgresql://clipq@127.0.0.1:{postgresql.port}/{name}?password={quote(PASSWORD, safe='')}"
    )
    with open_store(text, root=ROOT) as store:
        store.record(run(0))
        shown = repr(store) + repr(store.url) + repr(store.engine) + str(store.engine.url)
    stored = postgresql.execute("SELECT * FROM clipq.runs, clipq.cases", database=name)
    for form in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)):
        assert form not in shown + logged.getvalue() + repr(stored)
    assert stored


def test_a_url_s_copies_hide_what_it_hides():
    url = parse_url(f"postgresql://anna:{SECRET}@host/runs", root=ROOT)
    for other in (copy.copy(url), pickle.loads(pickle.dumps(url))):
        assert SECRET not in repr(other) + str(other) + f"{[other]}"
        assert other == url


def test_the_option_goes_before_the_environment_and_that_before_the_settings(tmp_path):
    settings = Settings(
        tmp_path / "clipq.toml", (), (), (), history=HistorySettings(store="sqlite:///settings.db")
    )
    environ = {"CLIPQ_STORE": "sqlite:///environ.db"}
    where = {"environ": environ, "folder": Path("/elsewhere")}
    assert store_url("sqlite:///o.db", settings, **where).path == tmp_path / "o.db"
    assert store_url(None, settings, **where).path == tmp_path / "environ.db"
    where["environ"] = {"CLIPQ_STORE": ""}
    assert store_url(None, settings, **where).path == tmp_path / "settings.db"
    assert store_url(None, None, **where).path == Path("/elsewhere/.clipq/history.db")
