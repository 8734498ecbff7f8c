"""Compressed request bodies: decoded within a limit, and refused where they cannot be."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from relay.bodies import decode_body
from relay.encodings import zstd
from relay.errors import ApiError

MIB = 1024 * 1024
ENCODERS: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_body_is_what_it_was_before_its_encoding(name: str) -> None:
    assert decode_body(ENCODERS[name](b"hello" * 1000), name, max_bytes=MIB) == b"hello" * 1000


def test_encodings_are_undone_from_the_last_to_the_first() -> None:
    assert decode_body(gzip.compress(zstd.compress(b"hello")), "zstd, gzip", max_bytes=MIB) == b"hello"


@pytest.mark.parametrize("encoding", ["", "identity", " , identity"])
def test_a_body_without_an_encoding_is_itself(encoding: str) -> None:
    assert decode_body(b"{}", encoding, max_bytes=1) == b"{}"


def test_a_body_beyond_the_limit_is_refused_with_the_limit() -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(gzip.compress(b"ab" * MIB), "gzip", max_bytes=MIB)

    assert (refusal.value.status, refusal.value.code) == (413, "invalid_request")
    assert str(MIB) in refusal.value.message


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(ENCODERS[name](bytes(30 * MIB)), name, max_bytes=50 * MIB)

    assert refusal.value.status in (400, 413)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_body_that_is_not_in_its_encoding_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(b'{"model": "m"}', name, max_bytes=MIB)

    assert refusal.value.status == 400
    assert name in refusal.value.message


@pytest.mark.parametrize("name", ENCODERS)
def test_a_body_that_is_cut_off_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(ENCODERS[name](b"hello" * 100)[:-6], name, max_bytes=MIB)

    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["br", "compress", "aws-chunked", "gzip, gzip, gzip, gzip"])
def test_another_encoding_is_refused_by_name(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(b"x", name, max_bytes=MIB)

    assert refusal.value.status == 415
    assert name in refusal.value.message
