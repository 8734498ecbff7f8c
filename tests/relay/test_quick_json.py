"""quick_json reads and writes the same JSON as `json`, also where msgspec raises and it falls back to that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import quick_json
from relay.pricing import parse_usage


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


COUNTS = st.one_of(st.none(), st.integers(-2, 2**70), st.text(max_size=2))
USAGES = st.one_of(
    st.none(), st.text(max_size=2), st.dictionaries(st.sampled_from(["prompt_tokens", "output_tokens"]), COUNTS)
)
ANSWERS = st.one_of(
    st.integers(),
    st.lists(st.integers(), max_size=2),
    st.fixed_dictionaries(
        {"id": st.text()}, optional={"usage": USAGES, "response": st.one_of(USAGES, st.builds(dict, usage=USAGES))}
    ),
)


@given(ANSWERS, st.booleans())
def test_read_usage_finds_the_same_usage_as_the_full_parse(answer: object, is_ascii: bool) -> None:
    raw = json.dumps(answer, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    assert parse_usage(quick_json.read_usage(raw)) == parse_usage(answer)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_has_no_usage(raw: bytes) -> None:
    assert parse_usage(quick_json.read_usage(raw)) is None
