"""Models, agents, media and marks of caching where no row stands for them: counted, or refused by their path."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from relay.dialects import DIALECTS
from relay.dialects.ask import Ask, Media, Need
from relay.errors import ApiError

CHAT, RESPONSES = "/chat/completions", "/responses"
HI = [{"role": "user", "content": "hi"}]
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(300)).decode()


def read(path: str, **body: Any) -> Ask:
    return DIALECTS[path].read({"model": "m"} | body, body_bytes=1000)


def refused(path: str, **body: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        read(path, **body)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
    return caught.value.param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning": {"model": "x"}}, "reasoning.model"),
        ({"reasoning": {"summary": {"summaryModel": "x"}}}, "reasoning.summary.summaryModel"),
        ({"thinking": {"type": "enabled", "model": "x"}}, "thinking.model"),
        ({"thinking": {"agents": 4}}, "thinking.agents"),
        ({"response_format": {"type": "json_object", "model": "x"}}, "response_format.model"),
        ({"response_format": {"json_schema": {"model": "x", "schema": {}}}}, "response_format.json_schema.model"),
        ({"tool_choice": {"type": "function", "model_name": "x"}}, "tool_choice.model_name"),
        ({"structured_outputs": {"json": {}, "model": "x"}}, "structured_outputs.model"),
        ({"stream_options": {"model": "x"}}, "stream_options.model"),
        ({"prediction": {"type": "content", "content": "x", "draftModel": "y"}}, "prediction.draftModel"),
        ({"audio": {"voice": "alloy", "format": "wav", "model": "x"}}, "audio.model"),
        ({"moderation": {"model": "omni", "fallback_model": "x"}}, "moderation.fallback_model"),
        ({"functions": [{"name": "f", "model": "x"}]}, "functions[0].model"),
        ({"tools": [{"type": "function", "function": {"name": "f", "model": "x"}}]}, "tools[0].function.model"),
        ({"messages": [{"role": "user", "content": "hi", "model": "x"}]}, "messages[0].model"),
        ({"messages": [{"role": "user", "content": "hi", "agent": {"name": "x"}}]}, "messages[0].agent"),
        ({"messages": [{"role": "user", "content": "hi", "options": {"modelId": "x"}}]}, "messages[0].options.modelId"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "model": "y"}]}]},
         "messages[0].content[0].model"),
    ],
)  # fmt: skip
def test_a_model_or_an_agent_inside_of_content_and_options_is_refused(body, param) -> None:
    assert refused(CHAT, **({"messages": HI} | body)) == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"agent": {"type": "agent_reference", "name": "y"}}, "agent"),
        ({"agent_reference": {"name": "y"}}, "agent_reference"),
        ({"agentReference": {"name": "y"}}, "agentReference"),
        ({"input": [{"type": "configuration_update", "model": "gpt-x"}]}, "input[0].model"),
        ({"input": [{"type": "configuration_update", "text": {"format": {"model": "x"}}}]},
         "input[0].text.format.model"),
        ({"input": [{"role": "user", "content": "hi", "agent_reference": {"name": "y"}}]}, "input[0].agent_reference"),
        ({"text": {"format": {"type": "text", "model": "x"}}}, "text.format.model"),
        ({"tools": [{"type": "web_search", "filters": {"model": "x"}}]}, "tools[0].filters.model"),
    ],
)  # fmt: skip
def test_a_model_or_an_agent_of_responses_is_refused(body, param) -> None:
    assert refused(RESPONSES, **({"input": "hi"} | body)) == param


SCHEMA = {"type": "object", "properties": {"model": {"type": "string"}, "agent": {"enum": [{"file_id": "x"}]}}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "car", "schema": SCHEMA}}}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
        (CHAT, {"response_format": {"type": "json_object", "schema": SCHEMA}}),
        (CHAT, {"structured_outputs": {"json": SCHEMA}}),
        (CHAT, {"guided_json": SCHEMA}),
        (CHAT, {"metadata": {"model": "x", "agent": "y", "memory": "z"}}),
        (CHAT, {"functions": [{"name": "f", "parameters": SCHEMA}]}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}),
        (CHAT, {"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "model"}]}}),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {"model": "x"}}}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": "hi", "attachments": [], "files": None}]}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "car", "schema": SCHEMA}}}),
        (RESPONSES, {"client_metadata": {"model": "x"}}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}),
        (RESPONSES, {"input": [{"type": "function_call", "call_id": "c", "arguments": {"model": "x"}}]}),
    ],
)
def test_names_in_schemas_arguments_and_metadata_are_the_clients_own(path, body) -> None:
    ask = read(path, **body)
    assert (ask.fields, ask.unknown) == ({"model": "m"} | body, ())


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": [{"type": "text", "text": "x", "image_url": {"url": "https://x/a.png"}}]}, "content[0].image_url"),
        ({"content": [{"type": "input_text", "text": "x", "image_url": "https://x"}]}, "content[0].image_url"),
        ({"content": [{"type": "text", "text": "x", "imageUrl": "https://x"}]}, "content[0].imageUrl"),
        ({"content": [{"type": "text", "text": "x", "input_audio": {"data": "x"}}]}, "content[0].input_audio"),
        ({"content": [{"type": "text", "text": "x", "file": {"file_data": "x"}}]}, "content[0].file"),
        ({"content": [{"type": "text", "text": "x", "file_data": "x"}]}, "content[0].file_data"),
        ({"content": [{"type": "text", "text": "x", "inlineData": {"data": "x"}}]}, "content[0].inlineData"),
        ({"content": [{"type": "text", "text": "x", "source": {"type": "url"}}]}, "content[0].source"),
        ({"content": [{"type": "image_url", "image_url": PNG, "input_audio": {"data": "x"}}]},
         "content[0].input_audio"),
        ({"content": [{"type": "image_url", "image_url": PNG, "imageUrl": PNG}]}, "content[0].imageUrl"),
        ({"content": [{"type": "image_url", "image_url": {"url": PNG, "URL": PNG}}]}, "content[0].image_url.URL"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "UklG", "Data": "x"}}]},
         "content[0].input_audio.Data"),
        ({"content": "x", "images": ["aGk="]}, "images[0]"),
        ({"content": "x", "images": [{"type": "zeta"}]}, "images[0].type"),
        ({"content": "x", "experimental_attachments": [{"url": "https://x"}]}, "experimental_attachments"),
        ({"content": "x", "attachments": [{"url": "https://x"}]}, "attachments"),
        ({"content": "x", "files": ["f"]}, "files"),
        ({"content": "x", "parts": [{"inline_data": {"data": "x"}}]}, "parts[0].inline_data"),
        ({"content": "x", "parts": [{"url": "https://x"}]}, "parts[0].url"),
    ],
)  # fmt: skip
def test_a_medium_where_nobody_counts_it_is_refused(message, param) -> None:
    assert refused(CHAT, messages=[{"role": "user"} | message]) == f"messages[0].{param}"


def test_pictures_of_a_message_are_counted() -> None:
    picture = {"type": "image_url", "image_url": {"url": PNG}}
    ask = read(CHAT, messages=[{"role": "assistant", "content": "x", "images": [picture, picture]}])
    assert ask.media == Media(images=2)


LONG = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cacheControl": LONG}]}]},
         "messages[0].content[0].cacheControl.ttl"),
        ({"messages": [{"role": "user", "content": "x", "Cache-Control": LONG}]}, "messages[0].Cache-Control.ttl"),
        ({"messages": [{"role": "user", "content": "x", "promptCacheBreakpoint": LONG}]},
         "messages[0].promptCacheBreakpoint.ttl"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "cache_control": LONG}]}]},
         "messages[0].tool_calls[0].cache_control.ttl"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"cacheControl": LONG}}]}]},
         "messages[0].tool_calls[0].function.cacheControl.ttl"),
        ({"messages": [{"role": "assistant", "thinking_blocks": [{"cache_control": LONG}]}]},
         "messages[0].thinking_blocks[0].cache_control.ttl"),
        ({"tools": [{"type": "function", "function": {"name": "f", "cache_control": LONG}}]},
         "tools[0].function.cache_control.ttl"),
        ({"tools": [{"type": "function", "function": {"name": "f"}, "cache_control": LONG}]},
         "tools[0].cache_control.ttl"),
        ({"functions": [{"name": "f", "cacheControl": LONG}]}, "functions[0].cacheControl.ttl"),
    ],
)  # fmt: skip
def test_a_mark_of_caching_in_any_spelling_holds_its_lifetime(body, param) -> None:
    ask = read(CHAT, **({"messages": HI} | body))
    assert (ask.needs, ask.extent.cache_writes) == ((Need(param, "cache_write_1h"),), ("cache_write_1h",))


def test_a_mark_of_caching_on_a_search_tool_holds_its_lifetime() -> None:
    ask = read(RESPONSES, input="hi", tools=[{"type": "web_search", "cache_control": LONG}])
    assert ask.extent.cache_writes == ("cache_write_1h",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"cacheControl": LONG}, "cacheControl"),
        ({"cache_control": {"TTL": "1h"}}, "cache_control.TTL"),
        ({"reasoning": {"cache_control": LONG}}, "reasoning.cache_control"),
        ({"zeta": {"cacheControl": LONG}}, "zeta.cacheControl"),
    ],
)
def test_a_mark_of_caching_where_nobody_reads_it_is_refused(body, param) -> None:
    assert refused(CHAT, messages=HI, **body) == param


@pytest.mark.parametrize(
    "name",
    [
        *("grounding", "enable_grounding", "internet", "internet_access", "online", "browsing", "browse", "useBrowser"),
        *("knowledge_base", "knowledgeBase", "knowledge", "rag", "enableRAG", "RAGConfig", "retrieval", "retriever"),
        *("num_agents", "numAgents", "agents", "sub_agents", "assistants", "assistant", "memory", "use_memory"),
        *("web", "web_access", "webAccess", "live", "live_data", "citations", "return_citations", "url_context"),
        *("code_execution", "sandbox", "datasets", "kb", "crawl", "workflow", "fetch_urls", "voice"),
        # These multiply the outputs.
        *("n_variants", "sampleCount", "num_outputs", "variants", "response_count", "n_rollouts", "ensemble_size"),
    ],
)
def test_a_name_that_speaks_of_agents_retrieval_or_more_outputs_is_refused(name) -> None:
    assert refused(CHAT, messages=HI, **{name: 3}) == name
    assert refused(CHAT, messages=HI, zeta={"deep": [{name: 3}]}) == f"zeta.deep[0].{name}"


@pytest.mark.parametrize("name", ["thinking_budget", "enableThinking", "n"])
def test_a_judged_name_in_an_unknown_structure_is_refused(name) -> None:
    assert refused(CHAT, messages=HI, parameters={name: 3}) == f"parameters.{name}"


@pytest.mark.parametrize(
    "name",
    [
        *("mirostat_tau", "typical_p", "top_a", "tfs_z", "samplers", "do_sample", "repeat_penalty", "repeat_last_n"),
        *("keep_alive", "num_ctx", "num_thread", "n_keep", "n_probs", "min_keep", "cache_prompt", "storage_class"),
        *("skip_special_tokens", "add_generation_prompt", "continue_final_message", "include_reasoning", "fragment"),
        *("return_assistant_tokens_mask", "length_penalty", "no_repeat_ngram_size", "reasoning_format", "user_agent"),
        *("dry_multiplier", "xtc_probability", "post_sampling_probs", "timings_per_token", "detect_repetition"),
        *("separate_reasoning", "prompt_logprobs", "language", "deliver", "include_stop_str"),
    ],
)
def test_a_harmless_name_passes(name) -> None:
    assert read(CHAT, messages=HI, **{name: 1}).unknown == (name,)
