"""Compressed request bodies: decoded within a limit, and refused where they cannot be."""

from __future__ import annotations

import gzip
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relay.encodings import decode_body
from relay.errors import ApiError

MIB = 1024 * 1024


def _bare_deflate(raw: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(raw) + encoder.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("name", ENCODERS)
@given(raw=st.binary(max_size=4096))
def test_a_body_is_what_it_was_before_its_encoding(name: str, raw: bytes) -> None:
    assert decode_body(ENCODERS[name](raw), name, max_bytes=MIB) == raw


def test_a_bare_deflate_stream_is_read_too() -> None:
    assert decode_body(_bare_deflate(b"hello" * 100), "deflate", max_bytes=MIB) == b"hello" * 100


def test_encodings_are_undone_from_the_last_to_the_first() -> None:
    assert decode_body(gzip.compress(zstandard.compress(b"hello")), "zstd, gzip", max_bytes=MIB) == b"hello"


@pytest.mark.parametrize("encoding", ["", "identity", " , identity"])
def test_a_body_without_an_encoding_is_itself(encoding: str) -> None:
    assert decode_body(b"{}", encoding, max_bytes=1) == b"{}"


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bomb_is_refused(name: str) -> None:
    bomb = ENCODERS[name](bytes(20 * MIB))

    with pytest.raises(ApiError) as refusal:
        decode_body(bomb, name, max_bytes=MIB)

    assert (refusal.value.status, refusal.value.code) == (413, "invalid_request")
    assert str(MIB) in refusal.value.message


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_body_that_is_not_in_its_encoding_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(b'{"model": "m"}', name, max_bytes=MIB)

    assert refusal.value.status == 400
    assert name in refusal.value.message


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_body_that_is_cut_off_is_refused(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(ENCODERS[name](b"hello" * 100)[:-6], name, max_bytes=MIB)

    assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["br", "compress", "aws-chunked"])
def test_another_encoding_is_refused_by_name(name: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_body(b"x", name, max_bytes=MIB)

    assert refusal.value.status == 415
    assert name in refusal.value.message
