"""The relay's conservation law, tried against a provider that bills by its documentation.

A request that is forwarded costs at most what was held for it, and all that it cost is charged. A request that is
refused costs nothing and names what it was refused for.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params, embedding_create_params, video_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from tests.relay.market import CHAT, RESPONSE, TEXT_LISTS, USD, VIDEO_LISTS, Market
from tests.relay.provider.asked import DANGEROUS, ENDPOINTS, HELLO, PNG, Endpoint, form, with_duplicate, written
from tests.relay.provider.billing import Mood
from tests.relay.provider.kinds import KINDS

pytestmark = pytest.mark.django_db(transaction=True)

# So many take a few seconds. To search longer: CONSERVATION_EXAMPLES=20000 pytest tests/relay/test_conservation.py
EXAMPLES = int(os.environ.get("CONSERVATION_EXAMPLES", "150"))
SDK_FIELDS = {
    "chat/completions": chat_create_params.CompletionCreateParamsBase,
    "completions": completion_create_params.CompletionCreateParamsBase,
    "responses": response_create_params.ResponseCreateParamsBase,
    "embeddings": embedding_create_params.EmbeddingCreateParams,
    "videos": video_create_params.VideoCreateParams,
}

# -- Whatever clients send --------------------------------------------------------------------------------------------


@st.composite
def asked(draw: st.DrawFn) -> tuple[Endpoint, dict[str, Any]]:
    """An endpoint, and a body for it with some of its fields, at times with one of those that are mostly refused."""
    endpoint = draw(st.sampled_from(list(ENDPOINTS.values())))
    names = draw(st.lists(st.sampled_from(sorted(set(endpoint.fields) - set(DANGEROUS))), max_size=3, unique=True))
    if draw(st.integers(0, 2)) == 0:
        names.append(draw(st.sampled_from(sorted(endpoint.fields))))
    body = {**endpoint.base, **{name: draw(st.sampled_from(endpoint.fields[name])) for name in names}}
    if draw(st.integers(0, 3)) == 0:
        # Without a limit of the client's own.
        body = {name: value for name, value in body.items() if not name.startswith("max_")}
    if endpoint.can_stream and draw(st.booleans()):
        body["stream"] = True
    return endpoint, {**body, "model": draw(st.sampled_from(_models(endpoint)))}


def _models(endpoint: Endpoint) -> list[str]:
    if endpoint.path == "videos":
        return [f"openai.{name}" for name in VIDEO_LISTS]
    kinds = [name for name, kind in KINDS.items() if endpoint.path in kind.serves]
    return [f"{kind}.{name}" for kind in sorted(kinds) for name in TEXT_LISTS]


moods = st.builds(
    Mood,
    used=st.sampled_from([100, 100, 40, 0]),
    cached=st.sampled_from([0, 30, 100]),
    written=st.sampled_from([0, 50, 100]),
    reasoning=st.sampled_from([0, 70]),
    numbers=st.sampled_from(["int", "int", "float", "digits"]),
)


@st.composite
def raw_bodies(draw: st.DrawFn, endpoint: Endpoint, body: dict[str, Any]) -> bytes:
    """The body in one of the ways to write it, at times with a field given twice."""
    raw = written(body, style=draw(st.sampled_from(["plain", "ascii", "escaped"])))
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(sorted(endpoint.fields)))
        raw = with_duplicate(raw, name, draw(st.sampled_from(endpoint.fields[name])), is_first=draw(st.booleans()))
    return raw


def test_whatever_is_forwarded_costs_at_most_its_hold_and_is_charged(market: Market) -> None:
    market.sell(sorted(set(KINDS) - {"openai"}), TEXT_LISTS)
    market.sell(["openai"], TEXT_LISTS + VIDEO_LISTS)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=st.data())
    def law(data: st.DataObject) -> None:
        endpoint, body = data.draw(asked())
        raw, mood = data.draw(raw_bodies(endpoint, body)), data.draw(moods)
        who = data.draw(st.sampled_from(["rich", "rich", "rich", "poor", "limited"]))
        outcome = market.post(endpoint.path, raw, who=who, mood=mood, is_stream="stream" in body)
        assert outcome.violations() == []

    law()
    assert market.violations() == []


@pytest.mark.any_database
@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_every_field_alone_obeys_the_law(plain: Market, path: str) -> None:
    endpoint, found = ENDPOINTS[path], []
    base = {**endpoint.base, "model": "openai.video" if path == "videos" else "openai.plain"}
    for name, values in endpoint.fields.items():
        for value in values if name in endpoint.own else values[:1]:
            outcome = plain.ask(path, {**base, name: value})
            found += [f"{name} = {str(value)[-120:]}: {violation}" for violation in outcome.violations()]

    found += plain.violations()
    assert not found, "\n".join(found)


@pytest.mark.any_database
@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_every_field_of_the_sdk_is_tried(path: str) -> None:
    assert set(SDK_FIELDS[path].__annotations__) - set(ENDPOINTS[path].fields) <= {"model"}


@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_harmless_fields_are_served(plain: Market, path: str) -> None:
    endpoint = ENDPOINTS[path]
    body = {**endpoint.base, "model": "openai.video" if path == "videos" else "openai.plain", **endpoint.harmless}

    outcome = plain.ask(path, body)

    assert (outcome.answer.status_code, outcome.violations()) == (200, []), outcome.answer.text


# -- The faults of issue 12, each with what is right ------------------------------------------------------------------


def test_prompts_and_best_of_multiply_the_hold(plain: Market) -> None:
    body = {"model": "openai.plain", "prompt": ["a"] * 100, "best_of": 20, "max_tokens": 100}

    outcome = plain.ask("completions", body)

    assert outcome.violations() == []
    # 100 prompts × 20 × 100 tokens at $10, and each byte of the body at $2.50.
    assert outcome.records[0].held == 2 * USD + len(written(body)) * 2500
    assert outcome.records[0].cost == outcome.entries[0].nanos > 2 * USD


def test_best_of_passes_neither_a_keys_limit_nor_a_wallet(plain: Market) -> None:
    body = {"model": "openai.plain", "prompt": ["a"] * 100, "best_of": 20, "max_tokens": 100}

    for _ in range(3):
        assert plain.ask("completions", body, who="poor").violations() == []
        assert plain.ask("completions", body, who="limited").violations() == []

    assert plain.violations() == []


FILE = {"type": "file", "file": {"file_id": "f"}}
CONTAINER = {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}
MORE_TOOLS = {"type": "additional_tools", "tools": [{"type": "web_search"}]}
# Which field an answer names for a request that no model of the plain price list can bound.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**CHAT, "messages": [{"role": "user", "content": [FILE]}]}, "messages[0].content[0].file.file_id"),
    ({**CHAT, "models": ["dear"]}, "models"),
    ({**CHAT, "fallbacks": ["dear"]}, "fallbacks"),
    ({**CHAT, "service_tier": "priority"}, "service_tier"),
    ({**CHAT, "web_search_options": {}}, "web_search_options"),
    ({**CHAT, "plugins": [{"id": "web"}]}, "plugins"),
    ({**RESPONSE, "input": [{"id": "msg_1"}]}, "input[0].id"),
    ({**RESPONSE, "background": True}, "background"),
    ({**RESPONSE, "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({**RESPONSE, "tools": [CONTAINER]}, "tools[0].type"),
    ({**RESPONSE, "input": [MORE_TOOLS]}, "input[0].tools[0].type"),
    ({**RESPONSE, "prompt": {"id": "pmpt_1"}}, "prompt"),
]


@pytest.mark.parametrize("style", ["plain", "escaped"])
def test_what_cannot_be_bounded_is_refused_by_its_path(plain: Market, style: str) -> None:
    for body, param in REFUSED:
        path = "chat/completions" if "messages" in body else "responses"
        outcome = plain.post(path, written(body, style=style))

        found = (outcome.answer.status_code, outcome.error.get("param"), outcome.entries, outcome.violations())
        assert found == (400, param, [], [])


@pytest.mark.parametrize(
    ("pointer", "param"),
    [
        ({"previous_response_id": "resp_of_somebody"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_of_somebody"}]}, "input[0].id"),
    ],
)
def test_somebody_elses_content_does_not_exist(plain: Market, pointer: dict[str, Any], param: str) -> None:
    outcome = plain.ask("responses", {**RESPONSE, **pointer})

    assert (outcome.answer.status_code, outcome.error["param"]) == (404, param)
    assert outcome.entries == [] and outcome.violations() == []


def test_a_megabyte_of_text_posing_as_a_picture_is_held(plain: Market) -> None:
    text = "Not a picture but a long text. " * 35_000
    part = {"type": "image_url", "image_url": {"url": text}}

    outcome = plain.ask("chat/completions", {**CHAT, "messages": [{"role": "user", "content": [part]}]})

    assert outcome.violations() == []


def test_a_picture_is_held_at_its_ceiling_and_not_by_its_bytes(plain: Market) -> None:
    picture = {"type": "image_url", "image_url": {"url": PNG + "A" * 1_000_000}}

    outcome = plain.ask("chat/completions", {**CHAT, "messages": [{"role": "user", "content": [picture]}]})

    assert outcome.violations() == []
    assert outcome.records[0].held < USD // 100


@pytest.mark.parametrize("order", [1, -1])
def test_a_form_with_two_boundaries_costs_what_was_held(plain: Market, order: int) -> None:
    cheap = form({"model": "openai.video", "prompt": "A cat.", "seconds": "4"}, "one")
    dear = form({"model": "openai.video", "prompt": "A cat.", "seconds": "3600"}, "two")
    boundaries = "; ".join(f"boundary={name}" for name in ("one", "two")[::order])

    outcome = plain.post("videos", cheap + dear, content_type=f"multipart/form-data; {boundaries}")

    assert outcome.violations() == []


def test_a_field_given_twice_is_read_as_it_is_forwarded(plain: Market) -> None:
    for is_first in (True, False):
        raw = with_duplicate(written(CHAT), "max_completion_tokens", 4000, is_first=is_first)
        assert plain.post("chat/completions", raw).violations() == []


def test_go_servers_read_names_in_any_case_and_are_held_to_the_limit(market: Market) -> None:
    market.sell(["ollama"], ["plain"])
    body = {"model": "ollama.plain", "messages": HELLO, "max_tokens": 10}

    for name in ("MAX_TOKENS", "Max_Tokens", "max_Tokens", "max_tokenſ"):
        assert market.ask("chat/completions", {**body, name: 8000}).violations() == []
