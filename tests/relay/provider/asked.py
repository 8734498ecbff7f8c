"""Requests that a client may send: the fields of each endpoint with values worth trying, and odd ways to write them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

HELLO: list[Json] = [{"role": "user", "content": "Hello, how are you?"}]
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(600)).decode()
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7\n" + bytes(600)).decode()
MP3 = base64.b64encode(b"\xff\xf3\x14\xc4" + bytes(20_000)).decode()
POSING = "Not a picture but a long text. " * 400
FUNCTION: Json = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
FLAT_FUNCTION: Json = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
SCHEMA: Json = {"type": "object", "properties": {"file_id": {"type": "string"}, "n": {"type": "integer"}}}


def _user(*parts: Any) -> list[Json]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


def _item(*parts: Any) -> list[Json]:
    return [{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, *parts]}]


def _search(**fields: Any) -> list[Json]:
    return [{"type": "web_search", **fields}]


# Values for fields that several endpoints have.
SAMPLING: dict[str, list[Any]] = {
    "temperature": [0.5],
    "top_p": [0.9],
    "seed": [7],
    "stop": ["\n", ["a", "b"]],
    "user": ["someone"],
    "frequency_penalty": [0.1],
    "presence_penalty": [0.1],
    "logit_bias": [{"50256": -100}],
    "stream_options": [
        {"include_usage": True},
        {"include_usage": False},
        {"include_usage": True, "continuous_usage_stats": True},
        {"include_obfuscation": False},
        None,
    ],
}
# Ways to multiply outputs, to choose other models and tools, and to point elsewhere that some provider understands.
DANGEROUS: dict[str, list[Any]] = {
    "n": [1, 3, 128, "5", 2.0, None],
    "best_of": [1, 20],
    "n_cmpl": [20],
    "N": [50],
    "use_beam_search": [True],
    "max_completion_tokens": [1, 50, 3000, "900", 1e3, None],
    "max_tokens": [1, 50, 3000, "900", None],
    "max_output_tokens": [3000],
    "n_predict": [8000, -1],
    "num_predict": [8000],
    "max_new_tokens": [8000],
    "MAX_TOKENS": [8000],
    "Max_Tokens": [8000],
    "max_tokenſ": [8000],
    "extra_body": [{"max_tokens": 8000, "max_completion_tokens": 8000}, {"n": 50}, {"fallbacks": ["dear"]}],
    "thinking_budget": [30_000],
    "enable_thinking": [True],
    "models": [["dear"]],
    "fallbacks": [["dear"], [{"model": "dear"}]],
    "context_window_fallback_dict": [{"m": "dear"}],
    "route": ["fallback"],
    "provider": [{"order": ["dear"]}],
    "preset": ["dear"],
    "plugins": [[{"id": "web"}]],
    "api_base": ["https://elsewhere.example/v1"],
    "model_list": [[{"model_name": "dear"}]],
    "search_parameters": [{"mode": "on"}],
    "search_settings": [{"include_domains": ["a"]}],
    "enable_search": [True],
    "data_sources": [[{"type": "azure_search"}]],
    "compound_custom": [{"models": {"answering_model": "dear"}}],
    "safety_model": ["dear"],
    "guardrails": [["dear"]],
    "routing_config": [{"model": "dear"}],
    "mcp_servers": [[{"url": "https://elsewhere.example"}]],
    "chat_template": ["{% for i in range(100000) %}long {% endfor %}"],
    "prompt_embeds": ["AAAA"],
    "deferred": [True],
    "background": [True],
    "service_tier": ["auto", "default", "flex", "priority", "fast", "ultrafast", "scale", "unheard-of"],
    "session_id": ["s"],
    "batch": [True],
    "my_fallback_models": [["dear"]],
    "harmless_new_field": [1, "text", None],
    "usage": [{"include": True}],
}
CHAT: dict[str, list[Any]] = {
    "messages": [
        HELLO,
        [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": None}],
        _user({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}),
        _user({"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}),
        _user({"type": "image_url", "image_url": {"url": POSING}}),
        _user({"type": "image_url", "image_url": POSING}),
        _user({"image_url": {"url": PNG}}),
        _user({"type": "input_audio", "input_audio": {"data": MP3, "format": "mp3"}}),
        _user({"type": "input_audio", "input_audio": {"url": "https://sounds.example/1.mp3"}}),
        _user({"type": "file", "file": {"file_id": "file-1"}}),
        _user({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}),
        _user({"file": {"file_data": PDF}}),
        _user({"type": "video_url", "video_url": {"url": "https://films.example/1.mp4"}}),
        _user({"type": "audio_url", "audio_url": {"url": "https://sounds.example/1.mp3"}}),
        _user({"type": "file_url", "file_url": "https://files.example/1.pdf"}),
        _user({"type": "input_video", "input_video": {"data": "AAAA"}}),
        _user({"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}),
        _user({"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        [{"role": "assistant", "audio": {"id": "audio_1"}}, *HELLO],
        [{"role": "tool", "tool_call_id": "c", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
        [{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": FUNCTION["function"]}]}],
    ],
    "tools": [
        [FUNCTION],
        [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        [{"type": "custom", "custom": {"name": "c"}}],
        _search(),
        _search(max_uses=3),
        [{"type": "browser_search"}],
        [{"type": "code_interpreter"}],
        [{"type": "builtin_function", "function": {"name": "$web_search"}}],
        [{"type": "retrieval", "retrieval": {"knowledge_id": "k"}}],
        [{"type": "mcp", "server_url": "https://elsewhere.example"}],
        [{"google_search": {}, "type": "google_search"}],
    ],
    "web_search_options": [{}, {"search_context_size": "high"}],
    "modalities": [["text"], ["text", "audio"]],
    "audio": [{"voice": "alloy", "format": "wav"}, {"voice": {"id": "voice_1"}, "format": "wav"}],
    "prediction": [{"type": "content", "content": "x" * 100}],
    "functions": [[{"name": "weather"}]],
    "function_call": ["auto"],
    "tool_choice": ["auto"],
    "parallel_tool_calls": [True],
    "response_format": [{"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}],
    "logprobs": [True],
    "top_logprobs": [2],
    "metadata": [{"a": "b"}],
    "moderation": [{"model": "omni-moderation-latest"}],
    "prompt_cache_key": ["k"],
    "prompt_cache_options": [{"mode": "explicit", "ttl": "30m"}, {"mode": "explicit", "ttl": "12h"}],
    "prompt_cache_retention": ["24h"],
    "reasoning_effort": ["high"],
    "safety_identifier": ["s"],
    "store": [True, False],
    "verbosity": ["low"],
}
COMPLETIONS: dict[str, list[Any]] = {
    "prompt": [
        "Once upon a time",
        ["a", "b", "c"],
        ["a"] * 100,
        [1, 2, 3, 4],
        [[1, 2], [3, 4], [5]],
        [[1]] * 50,
        ["a", [1, 2]],
        "ä" * 50,
    ],
    "echo": [True],
    "suffix": ["the end"],
    "logprobs": [3],
}
RESPONSES: dict[str, list[Any]] = {
    "input": [
        "Hello",
        _item({"type": "input_image", "image_url": PNG, "detail": "high"}),
        _item({"type": "input_image", "image_url": "https://pictures.example/1.png"}),
        _item({"type": "input_image", "image_url": POSING}),
        _item({"type": "input_image", "file_id": "file-1"}),
        _item({"type": "input_file", "file_id": "file-1"}),
        _item({"type": "input_file", "file_url": "https://files.example/1.pdf"}),
        _item({"type": "input_file", "file_data": PDF, "filename": "a.pdf"}),
        _item({"type": "input_audio", "input_audio": {"data": MP3, "format": "mp3"}}),
        [{"type": "item_reference", "id": "msg_1"}],
        [{"id": "msg_1"}],
        [{"id": "msg_1", "type": None}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "file-1"}]}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": PNG}]}],
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
        [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}],
        [{"type": "compaction", "encrypted_content": "AAAA"}],
        [{"type": "compaction_trigger"}, *_item()],
        [{"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": "f"}}],
        [{"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": PNG}}],
        [{"type": "image_generation_call", "id": "ig_1"}],
        [{"type": "additional_tools", "tools": _search()}, *_item()],
        [{"type": "configuration_update", "reasoning": {"effort": "high"}}, *_item()],
        [{"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": "{}", "server_label": "s"}],
        [{"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1"}],
    ],
    "tools": [
        [FLAT_FUNCTION],
        [{"type": "custom", "name": "c"}],
        [{"type": "local_shell"}],
        [{"type": "apply_patch"}],
        _search(),
        [{"type": "web_search_preview"}],
        [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
        [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"], "memory_limit": "64g"}}],
        [{"type": "code_interpreter", "container": "cntr_1"}],
        [{"type": "image_generation", "model": "dear", "n": 4}],
        [{"type": "mcp", "server_label": "s", "server_url": "https://elsewhere.example"}],
        [{"type": "namespace", "name": "n", "tools": _search()}],
        [{"type": "namespace", "name": "n", "tools": [FLAT_FUNCTION]}],
        [{"type": "shell", "environment": {"type": "container_auto", "file_ids": ["file-1"]}}],
        [{"type": "shell", "environment": {"type": "local"}}],
        [{"type": "tool_search", "execution": "server"}],
        [{"type": "programmatic_tool_calling"}],
        [{"type": "not_yet_known"}],
    ],
    "max_tool_calls": [1, 5],
    "instructions": ["Be brief."],
    "prompt": [{"id": "pmpt_1", "variables": {"a": "b"}}],
    "previous_response_id": ["resp_1"],
    "conversation": ["conv_1", {"id": "conv_1"}],
    "background_options": [{"completion_window": "2h"}],
    "context_management": [[{"type": "compaction", "compact_threshold": 1000}]],
    "prompt_cache_options": [
        {"mode": "explicit", "ttl": "12h"},
        {"prewarm": True, "ttl": "30m"},
        {"comparison_response_id": "resp_1"},
    ],
    "reasoning": [{"effort": "high"}, {"mode": "pro"}, {"mode": "standard"}],
    "text": [{"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}, "verbosity": "low"}],
    "access_programs": [{"cyber": {"id": "p"}}],
    "image": [{"context_compression": "auto"}],
    "include": [["reasoning.encrypted_content"]],
    "moderation": [{"model": "omni-moderation-latest"}],
    "truncation": ["auto"],
    "store": [True, False],
    "metadata": [{"a": "b"}],
    "parallel_tool_calls": [True],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["24h"],
    "safety_identifier": ["s"],
    "tool_choice": ["auto"],
    "top_logprobs": [2],
}
EMBEDDINGS: dict[str, list[Any]] = {
    "input": [
        "some words",
        ["a", "b"],
        [1, 2, 3],
        [[1, 2], [3]],
        "字" * 40,
        [{"content": [{"type": "image_url", "image_url": {"url": PNG}}]}],
    ],
    "dimensions": [64],
    "encoding_format": ["float"],
    "input_type": ["query"],
    "messages": [_user({"type": "image_url", "image_url": {"url": PNG}})],
    "images": [[PNG]],
    "inputs": [[{"content": [{"type": "image_url", "image_url": "https://pictures.example/1.png"}]}]],
}
VIDEOS: dict[str, list[Any]] = {
    "prompt": ["A cat."],
    "seconds": ["8", 12, "3600"],
    "size": ["1280x720", "1792x1024", "9999x9999"],
    "n": [1, 3, "4"],
    "num_videos": [5],
    "duration": [3600],
    "n_seconds": [600],
    "resolution": ["4k"],
    "generate_audio": [True],
    "input_reference": [{"file_id": "file-1"}, {"image_url": PNG}],
    "models": [["dear"]],
    "fallbacks": [["dear"]],
    "harmless_new_field": [1],
}


@dataclass(frozen=True)
class Endpoint:
    path: str
    base: Json = field(repr=False)
    fields: dict[str, list[Any]] = field(repr=False)
    # Fields that no relay need refuse.
    harmless: Json = field(repr=False)
    can_stream: bool = True

    @property
    def own(self) -> set[str]:
        """Fields that are tried with all their values here; those that endpoints share are so with chat."""
        return set(self.fields) - (set() if self.path == "chat/completions" else {*SAMPLING, *DANGEROUS})


_SAMPLED: Json = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["a", "b"], "user": "someone", "n": 2}
_CONVERSED: Json = {"metadata": {"a": "b"}, "store": False, "prompt_cache_key": "k", "parallel_tool_calls": True}
HARMLESS: dict[str, Json] = {
    "chat/completions": {
        **_SAMPLED,
        **_CONVERSED,
        "tools": [FUNCTION],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        "reasoning_effort": "high",
        "logprobs": True,
        "safety_identifier": "s",
        "harmless_new_field": 1,
    },
    "completions": {**_SAMPLED, "echo": True, "suffix": "the end", "logprobs": 3},
    "responses": {
        **_CONVERSED,
        "instructions": "Be brief.",
        "reasoning": {"effort": "high"},
        "tools": [FLAT_FUNCTION],
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low"},
        "truncation": "auto",
    },
    "embeddings": {"dimensions": 64, "encoding_format": "float", "user": "someone"},
    "videos": {"seconds": "8"},
}
ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            "chat/completions",
            {"messages": HELLO, "max_completion_tokens": 40},
            {**SAMPLING, **DANGEROUS, **CHAT},
            HARMLESS["chat/completions"],
        ),
        Endpoint(
            "completions",
            {"prompt": "Once", "max_tokens": 40},
            {**SAMPLING, **DANGEROUS, **COMPLETIONS},
            HARMLESS["completions"],
        ),
        Endpoint(
            "responses",
            {"input": "Hello", "max_output_tokens": 40},
            {**SAMPLING, **DANGEROUS, **RESPONSES},
            HARMLESS["responses"],
        ),
        Endpoint(
            "embeddings",
            {"input": "some words"},
            {**SAMPLING, **DANGEROUS, **EMBEDDINGS},
            HARMLESS["embeddings"],
            can_stream=False,
        ),
        Endpoint("videos", {"prompt": "A cat."}, VIDEOS, HARMLESS["videos"], can_stream=False),
    )
}


def written(body: Json, *, style: str = "plain") -> bytes:
    """The body as JSON: "plain", with all non-ASCII escaped ("ascii"), or with letters of all names escaped."""
    if style == "escaped":
        body = {f"\0{name}": _marked(value) for name, value in body.items()}
    text = json.dumps(body, ensure_ascii=style != "plain")
    if style == "escaped":
        text = _escaped_names(text)
    return text.encode("utf-8", "surrogatepass")


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"\0{name}": _marked(inner) for name, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def _escaped_names(text: str) -> str:
    r"""Names begin with a marker: their first character is written as \u00XX, and each underscore."""
    pieces = text.split('"\\u0000')
    escaped = [pieces[0]]
    for piece in pieces[1:]:
        name, quote, rest = piece.partition('"')
        first = f"\\u{ord(name[0]):04x}" if name and name[0] != "\\" else name[:1]
        escaped.append('"' + first + name[1:].replace("_", "\\u005f") + quote + rest)
    return "".join(escaped)


def with_duplicate(raw: bytes, name: str, value: Any, *, is_first: bool = False) -> bytes:
    """The same object with one more member of that name, before or after all others."""
    member = f"{json.dumps(name)}: {json.dumps(value)}".encode()
    return b"{" + member + b", " + raw[1:] if is_first else raw[:-1] + b", " + member + b"}"


def form(fields: dict[str, str], boundary: str) -> bytes:
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return "".join([*parts, f"--{boundary}--\r\n"]).encode()
