"""What reaches people is text, whatever names say, and holds no credential."""

from __future__ import annotations

import ast
import io
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clipq
from clipq.errors import ProbeError
from clipq.redaction import redacted
from clipq.terminal import emit, one_line, printable, say

PACKAGE = Path(clipq.__file__).parent
SECRET = "hunter2-secret"
HOSTILE = st.text() | st.lists(
    st.sampled_from(
        ["\x1b[2J", "::error::x", "\n", " ", "\t", "##[", "##vso[", "#", ":", "\r", "\u2028",
         "\x85", "\u00a0", "\u202e", "\ud800", "\x7f", "a"]
    )
).map("".join)  # fmt: skip


@given(text=HOSTILE)
def test_printable_text_holds_no_control_character_and_no_command(text):
    shown = printable(text)
    assert all(letter == "\n" or letter.isprintable() for letter in shown)
    for line in shown.split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line
    assert printable(shown) == shown
    assert "\n" not in one_line(text)
    shown.encode()


@given(text=st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters=":#")))
def test_ordinary_text_is_left_alone(text):
    assert printable(text) == text


def test_what_the_terminal_s_encoding_lacks_is_an_escape(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    say("naïve", "\u00b1")
    emit('{"a": 1}')
    stream.flush()
    assert stream.buffer.getvalue() == b'na\\xefve \\xb1\n{"a": 1}\n'


def test_nothing_of_clipq_writes_to_the_terminal_but_through_one_module():
    """`progress` draws a bar on a stream that it is given."""
    writing = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if "print(" not in source and ".write(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "sys.stdout.write", "sys.stderr.write"):
                writing.add(path.relative_to(PACKAGE).as_posix())
    assert writing == {"terminal.py", "cli/progress.py"}


@pytest.mark.parametrize(
    "text",
    [
        f"https://ada:{SECRET}@example.org/x: 401",
        f"https://{SECRET}@example.org/",
        f"https://ada:a/{SECRET}@b@example.org/",
        f"ftp://ada:{SECRET}@h https://bob:{SECRET}@h",
        f"postgresql://ada:{SECRET}@host/runs",
        f"https://example.org/x?rev=1&token={SECRET}&y=2",
        f"X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f'{{"access_token": "{SECRET}", "PGPASSWORD": "{SECRET}"}}',
        f"password = '{SECRET} and more'",
        f"sslpassword={SECRET}; api-key: {SECRET}",
        f"HF_TOKEN={SECRET}, client_secret={SECRET}",
        f'hf_token: {SECRET}, {{"token": "{SECRET}", "pass": "{SECRET}"}}',
        f"tokenValue={SECRET} hftoken={SECRET} clientSecret: {SECRET} APIKey={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} AWSAccessKeyId={SECRET} X-Auth-Token: {SECRET}",
        f"DB_PASS={SECRET} userPwd={SECRET} sslPassPhrase: {SECRET}, PGPASSWORD: {SECRET}",
        f"token=w8, password: {SECRET}, password:w8{SECRET} my_secret:w4a8/{SECRET}",
    ],
)
def test_no_error_and_no_line_shows_a_credential(text, capsys):
    error = ProbeError(f"cannot: {text}", hint=f"not {text}")
    say(text)
    say(text, error=True)
    printed = capsys.readouterr()
    copy = pickle.loads(pickle.dumps(error))
    for shown in (str(error), repr(error), repr(error.args), str(copy), printed.out, printed.err):
        assert SECRET not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "one scale per token: 5, 3 tokens = 3",
        "https://example.org:8080/models@main",
        "hf-hub:laion/CLIP-ViT-B-32 and ada@example.org",
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        "it says {'fail': 2, 'pass': 500}",
        'and {"pass": 500, "token": 12}',
        "token-merging:w8 fails; TokenMerging: nothing; vit/merge-token:w4a8@vision/id.ece: no",
        "token-merging: 3 of 5 failed, secretary: x, tokenizer=a, per-token: 8, first-pass: 3.5",
        "no quantizer 'token-merging:w8'; did you mean 'my-secret:we4m3,steps=9'?",
        "the bypass = 3, the passfile=x, passed: 4, signature: f(x)",
    ],
)
def test_what_is_no_credential_is_left_alone(text):
    assert redacted(text) == text


def test_redaction_takes_time_in_proportion_to_the_text():
    for part in ("a://", "password=", "token: ", "x@", "https://a:b@"):
        began = time.process_time()
        redacted(part * 20_000)
        assert time.process_time() - began < 5


def test_known_tokens_are_hidden_wherever_they_stand():
    for token in ("hf_" + "a1" * 17, "ghp_" + "a1" * 18, "AKIA" + "A1" * 8, "glpat-" + "a1" * 10):
        assert token not in redacted(f"the hub said {token}!")
