"""quick_json reads and writes the same JSON as `json`, also where msgspec raises and it falls back to that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import quick_json


@pytest.mark.parametrize(
    "text",
    [
        '{"seed":123456789012345678901234567890}',
        '{"text":"\\ud83d"}',
        '{"a":1,"a":2}',
        '{"a":1e400}',
        "[1.5,null,true]",
    ],
)
def test_read_returns_the_same_as_json(text: str) -> None:
    assert quick_json.read(text.encode()) == json.loads(text)


@pytest.mark.parametrize("value", [{"seed": 2**70}, {"text": "\ud83d"}, {"text": "\0 é"}, [1.5, None, True]])
def test_written_json_reads_back_the_same(value: object) -> None:
    assert json.loads(quick_json.write(value)) == value


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xff", b"{'a': 1}"])
def test_invalid_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        quick_json.read(raw)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2**70), st.text(max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=5,
)
NAMES = ["id", "usage", "response", "choices", "data", "results", "elsewhere"]
CHOICES = st.lists(st.dictionaries(st.sampled_from(["message", "text", "logprobs"]), VALUES, max_size=3), max_size=2)


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(VALUES, CHOICES)), st.booleans())
def test_an_answer_is_read_like_json_but_for_what_is_skipped(answer: dict[str, object], is_ascii: bool) -> None:
    raw = json.dumps(answer, ensure_ascii=is_ascii).encode(errors="surrogatepass")

    got = quick_json.read_answer(raw)

    for name in ("id", "usage", "response"):
        assert got.get(name) == answer.get(name)
    for name in ("data", "results"):
        assert bool(got.get(name)) == bool(answer.get(name)) or answer.get(name) == 0


def test_only_what_is_read_of_a_choice_is_decoded() -> None:
    raw = b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [1, 2]}}], "data": [[0.5]], "more": 1}'

    assert quick_json.read_answer(raw) == {
        "choices": [{"message": {"content": "x"}}],
        "data": True,
        "results": False,
        "embeddings": False,
    }


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"nul"])
def test_an_answer_that_is_not_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        quick_json.read_answer(raw)
