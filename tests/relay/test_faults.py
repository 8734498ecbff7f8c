"""Errors in the shapes of every dialect, and what of them reaches a client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.faults import Fault, Mask, client_body, fault_in_success, read_fault

SHAPES: list[tuple[Any, Fault]] = [
    (
        {"error": {"message": "m", "type": "t", "param": "input[0].text", "code": "c"}},
        Fault("m", "c", "t", "input[0].text"),
    ),
    ({"error": {"message": "m", "code": 429, "metadata": {}}}, Fault("m", status=429)),
    ({"error": {"message": "m", "code": "503"}}, Fault("m", "503", status=503)),
    ({"code": "invalid-argument", "error": "m"}, Fault("m", "invalid-argument")),
    ({"error": "m"}, Fault("m")),
    ({"error": {"error": "m"}}, Fault("m")),
    ({"object": "error", "message": "m", "type": "t", "param": None, "code": "3051"}, Fault("m", "3051", "t")),
    (
        {"detail": [{"loc": ["body", "max_tokens"], "msg": "m", "type": "extra_forbidden"}]},
        Fault("body.max_tokens: m"),
    ),
    ({"detail": "m"}, Fault("m")),
    ({"message": "m"}, Fault("m")),
    (
        {"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "req_1"},
        Fault("m", "", "overloaded_error"),
    ),
    (
        [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT", "details": [{"reason": "R"}]}}],
        Fault("m", "INVALID_ARGUMENT", status=400),
    ),
    ({"error": {"message": 7, "code": {"a": 1}, "param": "a b"}}, Fault()),
    ({}, Fault()),
    ([], Fault()),
    (None, Fault()),
    (17, Fault()),
]


@pytest.mark.parametrize(("document", "fault"), SHAPES)
def test_an_error_is_read_in_every_shape(document: Any, fault: Fault) -> None:
    assert read_fault(json.dumps(document).encode()) == fault


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"{", b"[" * 100_000])
def test_what_is_not_json_tells_nothing(body: bytes) -> None:
    assert read_fault(body) == Fault()


@pytest.mark.parametrize(
    "document",
    [
        {"id": "x", "error": None, "choices": []},
        {"error": {"message": "m"}, "usage": {"total_tokens": 3}},
        {"object": "list", "data": [{"error": "x"}]},
        {"type": "response.failed", "response": {"error": {"code": "x"}, "usage": {"output_tokens": 1}}},
        {"type": "response.created", "response": {"error": None}},
        {"type": "message_start", "message": {}},
        "text",
        None,
    ],
)
def test_an_answer_or_a_charged_failure_is_no_error_in_place_of_an_answer(document: object) -> None:
    assert fault_in_success(document) is None


MASK = Mask(
    "https://eu.api.provider.example/v1",
    secrets=("hunter2-is-long", "s3cr3t!"),
    renames=(("acme-dep-7", "gpt-4o"),),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Rate limit reached in organization org-aB3dE6fG9 on tokens",
            "Rate limit reached in organization … on tokens",
        ),
        ("Your project proj_12345678 may not", "Your project … may not"),
        ("in organization acme-corp now", "in organization … now"),
        ("of workspace 'Blue Team' here", "of workspace … here"),
        ("Incorrect API key provided: sk-ab***********wxyz.", "Incorrect API key provided: …"),
        ("key AIzaSyA1234567890 is bad", "key … is bad"),
        ("gsk_abcdefgh12345 expired", "… expired"),
        ("sent Bearer abc.def.ghi twice", "sent Bearer … twice"),
        ("ask owner@acme.example for more", "ask … for more"),
        ("subscription 0f8fad5b-d9cb-469f-a165-70867728950e", "subscription …"),
        ("token 1234567890abcdef1234567890abcdef is bad", "token … is bad"),
        ("see https://platform.provider.example/account/limits now", "see … now"),
        ("The model acme-dep-7 takes no pictures", "The model gpt-4o takes no pictures"),
        ("by hunter2-is-long and s3cr3t! too", "by … and … too"),
        ("host eu.api.provider.example is busy", "host … is busy"),
    ],
)
def test_what_tells_of_the_operators_account_is_masked(text: str, shown: str) -> None:
    assert MASK.apply(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens is too large: 999999. This model supports at most 16384 completion tokens",
        "Unsupported value: 'temperature' does not support 0.2 with this model.",
        "Invalid 'messages[3].content': string too long. Expected at most 1048576 characters.",
        "Failed to download https://images.example/cat.png",
        "Previous response with id 'resp_68a1f0c2d4b88190a1b2c3d4e5f60718293a4b5c6d7e8f90' not found.",
        "tool_use ids were found without tool_result blocks: toolu_01A09q90qw90lq917835lq9x",
        "This model's maximum context length is 128000 tokens.",
    ],
)
def test_what_helps_the_client_keeps_its_words(text: str) -> None:
    assert MASK.apply(text) == text


def test_an_error_that_tells_nothing_gets_words_of_ours() -> None:
    assert json.loads(client_body(Fault(), MASK, otherwise="It refused.")) == {
        "error": {"message": "It refused.", "type": "invalid_request_error", "param": None, "code": None}
    }
