"""Prompts that are cut, and classes with the same tokens, are named; nothing else is."""

from __future__ import annotations

import open_clip
import pytest
import torch

from clipq.models.prompt_check import caption_remarks, cut_texts, prompt_remarks, same_tokens

CLIP = open_clip.SimpleTokenizer(context_length=12)
WORDS = ["a", "red", "fox", "in", "the", "snow", "of", "one", "long", "winter", "by", "my", "sea"]


class Padded:
    """A tokenizer of words that pads as others do.

    `clips`: a class token ends each row. `siglip`: the end of a text is what pads.
    """

    def __init__(self, kind: str, length: int) -> None:
        self.kind, self.length = kind, length

    def __call__(self, texts, context_length=None):
        length, rows = context_length or self.length, []
        for text in texts:
            tokens = [10 + WORDS.index(word) for word in text.split()]
            if self.kind == "siglip":
                row = [*tokens[: length - 1], 1]
                rows.append(row + [1] * (length - len(row)))
            else:
                row = [2, *tokens[: length - 3], 3]
                rows.append(row + [0] * (length - 1 - len(row)) + [101])
        return torch.tensor(rows)


def test_a_text_is_cut_where_clip_s_tokens_do_not_fit():
    """Two of the tokens are the start and the end."""
    texts = [" ".join(WORDS[:n]) for n in range(len(WORDS) + 1)]
    for context in (5, 12, 16):
        tokenizer = open_clip.SimpleTokenizer(context_length=context)
        expected = [n for n in range(len(texts)) if len(tokenizer.encode(texts[n])) + 2 > context]
        found = cut_texts(tokenizer, texts)
        assert [one.position for one in found] == expected
        for one in found:
            assert one.tokens == len(tokenizer.encode(texts[one.position])) + 2
            assert one.allowed == context


def test_a_text_of_many_times_the_context_is_counted():
    [found] = cut_texts(CLIP, [" ".join(["fox"] * 300)])
    assert found.tokens == 302


@pytest.mark.parametrize(("kind", "fit"), [("clips", 9), ("siglip", 11)])
def test_other_kinds_of_padding_are_understood(kind, fit):
    texts = [" ".join(WORDS[:n]) for n in range(len(WORDS))]
    found = cut_texts(Padded(kind, 12), texts)
    assert [one.position for one in found] == list(range(fit + 1, len(texts)))


def test_a_tokenizer_of_one_length_cannot_be_asked():
    def tokenizer(texts):
        return CLIP(texts)

    assert cut_texts(tokenizer, [" ".join(WORDS)]) == []
    assert cut_texts(CLIP, []) == []


def test_every_cut_prompt_is_counted_and_the_longest_is_named():
    long = "a photo of the {c}, " + "very " * 6 + "small"
    said = prompt_remarks(CLIP, ["fox", "arctic fox", "owl"], ["a {c}.", long])
    assert len(said) == 1
    assert said[0].startswith("3 of 6 prompts are longer than the 12 tokens")
    assert f"'arctic fox' in template {long!r} takes 16" in said[0]


def test_cut_captions_are_named_with_their_probe():
    [said] = caption_remarks(CLIP, "captions", ["a fox", " ".join(WORDS)])
    assert said.startswith("probe 'captions': 1 of 2 captions are longer than the 12 tokens")


@pytest.mark.parametrize(
    "pair", [("Star", "star"), ("missile", "missile"), ("sea  lion", "sea lion")]
)
def test_names_that_clip_reads_alike_are_one_class(pair):
    names = ["owl", pair[0], "boat", pair[1]]
    assert same_tokens(CLIP, names, ["a photo of a {c}."]) == [(1, 3)]
    [said] = prompt_remarks(CLIP, names, ["a photo of a {c}."])
    assert f"{pair[0]!r} = {pair[1]!r}" in said


def test_names_of_other_tokens_in_one_template_are_two_classes():
    templates = ["a {c}.", "the {c}s"]
    assert same_tokens(CLIP, ["glass", "glass "], templates[:1]) == [(0, 1)]
    assert same_tokens(CLIP, ["glass", "glass "], templates) == []


def test_names_that_differ_beyond_the_context_are_one_class():
    start = " ".join(WORDS)
    assert same_tokens(CLIP, [f"{start} fox", f"{start} owl"], ["a {c}"]) == [(0, 1)]


def test_underscores_are_as_the_tokenizer_has_them():
    names = ["fire_truck", "fire truck"]
    assert same_tokens(CLIP, names, ["a {c}"]) == []
    plain = open_clip.SimpleTokenizer(context_length=12, clean="canonicalize")
    assert same_tokens(plain, names, ["a {c}"]) == [(0, 1)]
