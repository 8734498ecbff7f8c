"""JSON read and written by msgspec means what it meant to `json`, which does what msgspec refuses."""

from __future__ import annotations

import json

import pytest

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
def test_what_is_read_is_what_json_reads(text: str) -> None:
    assert quick_json.read(text.encode()) == json.loads(text)


@pytest.mark.parametrize("value", [{"seed": 2**70}, {"text": "\ud83d"}, {"text": "\0 é"}, [1.5, None, True]])
def test_what_is_written_reads_the_same(value: object) -> None:
    assert json.loads(quick_json.write(value)) == value


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xff", b"{'a': 1}"])
def test_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        quick_json.read(raw)
