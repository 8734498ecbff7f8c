"""Whole answers of many dialects: their usage as counts, and errors inside a 200."""

from __future__ import annotations

from typing import Any

from relay.pricing import MAX_TOKENS

CHAT = "/chat/completions"


def chat(prompt: object, completion: object, total: object = None, **more: object) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion} | more
    return {
        "choices": [{"message": {"content": "x"}}],
        "usage": usage | ({} if total is None else {"total_tokens": total}),
    }


def details(**inside: object) -> dict[str, object]:
    return {"prompt_tokens_details": inside}


USAGES: list[tuple[str, str, dict[str, Any], dict[str, int] | None]] = [
    (
        "reasoning inside",
        CHAT,
        chat(9, 50, 59, completion_tokens_details={"reasoning_tokens": 40}),
        {"input": 9, "output": 50},
    ),
    (
        "reasoning beside, without a total",
        CHAT,
        chat(9, 5, completion_tokens_details={"reasoning_tokens": 40}),
        {"input": 9, "output": 45},
    ),
    (
        "reasoning beside, in part of the total",
        CHAT,
        chat(9, 5, 60, completion_tokens_details={"reasoning_tokens": 40}),
        {"input": 9, "output": 51},
    ),
    (
        "more reasoning than output, but total is the sum",
        CHAT,
        chat(9, 5, 14, completion_tokens_details={"reasoning_tokens": 40}),
        {"input": 9, "output": 5},
    ),
    ("a total of zero", CHAT, chat(9, 5, 0), {"input": 9, "output": 5}),
    ("only a total, where there is output", CHAT, {"usage": {"total_tokens": 50}}, None),
    (
        "input is what output leaves of the total",
        CHAT,
        {"usage": {"completion_tokens": 20, "total_tokens": 50}},
        {"input": 30, "output": 20},
    ),
    ("input alone, and no output", CHAT, {"usage": {"prompt_tokens": 5}}, None),
    (
        "Cohere's embeddings of pictures alone",
        "/embeddings",
        {"embeddings": {"float": [[1.0]]}, "meta": {"billed_units": {"image_tokens": 9}}},
        {"image_input": 9},
    ),
    ("zero is zero", CHAT, chat(0, 0, 0), {}),
    ("negative", CHAT, chat(-1, 5), {"output": 5}),
    ("true is no count", CHAT, chat(True, 5), {"output": 5}),
    ("fractions round up", CHAT, chat(10.2, 4.5), {"input": 11, "output": 5}),
    ("huge", CHAT, chat(2**70, 10**30), {"input": MAX_TOKENS, "output": MAX_TOKENS}),
    (
        "details null",
        CHAT,
        chat(9, 5, 14, prompt_tokens_details=None, completion_tokens_details=None),
        {"input": 9, "output": 5},
    ),
    (
        "Mistral's singular details",
        CHAT,
        chat(400, 60, 460, prompt_token_details={"cached_tokens": 256}),
        {"input": 144, "cached": 256, "output": 60},
    ),
    (
        "Mistral's audio by time",
        CHAT,
        chat(40, 6, 46, prompt_audio_seconds=12),
        {"input": 40, "output": 6, "seconds": 12},
    ),
    (
        "DeepSeek today, two names for one count",
        CHAT,
        chat(100, 1, 101, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36, **details(cached_tokens=64)),
        {"input": 36, "cached": 64, "output": 1},
    ),
    (
        "MiniMax's native names beside input",
        "/messages",
        {
            "usage": {
                "input_tokens": 10,
                "output_tokens": 2,
                "cache_read_input_tokens": 90,
                "cache_creation_input_tokens": 7,
            }
        },
        {"input": 10, "cached": 90, "cache_write_5m": 7, "output": 2},
    ),
    (
        "LiteLLM's lifetimes",
        CHAT,
        chat(
            1000,
            5,
            1005,
            cache_creation_input_tokens=300,
            **details(cache_creation_tokens=300, cache_creation_token_details={"ephemeral_1h_input_tokens": 300}),
        ),
        {"input": 700, "cache_write_1h": 300, "output": 5},
    ),
    (
        "cached beside the prompt, as the total shows",
        CHAT,
        chat(100, 5, 1005, **details(cached_tokens=900)),
        {"input": 100, "cached": 900, "output": 5},
    ),
    (
        "cached more than xAI's prompt",
        CHAT,
        chat(11, 5, 16, num_sources_used=0, **details(cached_tokens=4000)),
        {"input": 11, "cached": 4000, "output": 5},
    ),
    (
        "Anthropic's names beside a smaller prompt",
        CHAT,
        chat(100, 5, 105, cache_read_input_tokens=900, cache_creation_input_tokens=7),
        {"input": 100, "cached": 900, "cache_write_5m": 7, "output": 5},
    ),
    (
        "cached and written more than the prompt",
        CHAT,
        chat(100, 5, 105, **details(cached_tokens=80, cache_write_tokens=50)),
        {"cached": 80, "cache_write_5m": 20, "output": 5},
    ),
    (
        "cached sound",
        CHAT,
        chat(100, 5, 105, **details(cached_tokens=60, audio_tokens=90, cached_tokens_details={"audio_tokens": 55})),
        {"input": 5, "cached": 60, "audio_input": 35, "output": 5},
    ),
    (
        "cached sound without details",
        CHAT,
        chat(100, 5, 105, **details(cached_tokens=60, audio_tokens=90)),
        {"cached": 60, "audio_input": 40, "output": 5},
    ),
    (
        "pictures in and out",
        CHAT,
        chat(100, 50, 150, completion_tokens_details={"image_tokens": 30}, **details(image_tokens=70)),
        {"input": 30, "image_input": 70, "output": 20, "image_output": 30},
    ),
    (
        "xAI's searches",
        CHAT,
        chat(9, 5, 14, server_side_tool_usage_details={"web_search_calls": 2, "x_search_calls": 1}),
        {"input": 9, "output": 5, "searches": 3},
    ),
    (
        "OpenRouter's searches",
        CHAT,
        chat(9, 5, 14, server_tool_use={"web_search_requests": 4}),
        {"input": 9, "output": 5, "searches": 4},
    ),
    (
        "Perplexity",
        CHAT,
        chat(33, 7, 40, citation_tokens=168, num_search_queries=18, reasoning_tokens=95),
        {"input": 33, "output": 7, "searches": 18, "reasoning": 95, "citation": 168},
    ),
    (
        "Perplexity's searches in Responses",
        "/responses",
        {
            "usage": {
                "input_tokens": 30,
                "output_tokens": 7,
                "input_tokens_details": {"cache_read_input_tokens": 10},
                "tool_calls_details": {"search_web": {"invocation": 2}},
            }
        },
        {"input": 20, "cached": 10, "output": 7, "searches": 2},
    ),
    (
        "Cohere",
        CHAT,
        {
            "message": {"content": []},
            "usage": {
                "billed_units": {"input_tokens": 5.0, "output_tokens": 9.0},
                "tokens": {"input_tokens": 500, "output_tokens": 20},
                "cached_tokens": 3,
            },
        },
        {"input": 2, "cached": 3, "output": 9},
    ),
    (
        "Cohere's embeddings",
        "/embeddings",
        {"embeddings": {"float": [[1.0]]}, "meta": {"billed_units": {"input_tokens": 4, "image_tokens": 9}}},
        {"input": 4, "image_input": 9},
    ),
    ("embeddings with a larger total", "/embeddings", {"usage": {"prompt_tokens": 5, "total_tokens": 8}}, {"input": 8}),
    (
        "Cloudflare's result",
        CHAT,
        {"result": {"response": "x", "usage": {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}}},
        {"input": 5, "output": 8},
    ),
    (
        "Mistral's usage_info",
        CHAT,
        {"usage_info": {"prompt_tokens": 5, "completion_tokens": 8}},
        {"input": 5, "output": 8},
    ),
    (
        "Bedrock",
        "/messages",
        {
            "usage": {
                "inputTokens": 10,
                "outputTokens": 3,
                "totalTokens": 113,
                "cacheReadInputTokens": 60,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 40}],
            }
        },
        {"input": 10, "cached": 60, "cache_write_1h": 40, "output": 3},
    ),
    (
        "Gemini",
        CHAT,
        {
            "candidates": [{"content": {"parts": []}, "groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
            "usageMetadata": {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 20,
                "toolUsePromptTokenCount": 7,
                "candidatesTokenCount": 30,
                "thoughtsTokenCount": 50,
                "totalTokenCount": 187,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 40},
                    {"modality": "AUDIO", "tokenCount": 60},
                ],
            },
        },
        {"input": 27, "cached": 20, "audio_input": 60, "output": 80, "searches": 2},
    ),
    (
        "Anthropic's inner runs",
        "/messages",
        {
            "content": [],
            "usage": {
                "input_tokens": 10,
                "output_tokens": 3,
                "iterations": [{"type": "message", "input_tokens": 10, "output_tokens": 3}],
            },
        },
        {"input": 10, "output": 3},
    ),
    (
        "both families' names, one of them zero",
        CHAT,
        {
            "usage": {
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "input_tokens": 9,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 5},
            }
        },
        {"input": 4, "cached": 5, "output": 4},
    ),
    (
        "a citation is one search at least",
        CHAT,
        chat(9, 5, 14)
        | {
            "choices": [
                {"message": {"content": "x", "annotations": [{"type": "url_citation"}, {"type": "url_citation"}]}}
            ]
        },
        {"input": 9, "output": 5, "searches": 1},
    ),
    (
        "searches by items",
        "/responses",
        {
            "usage": {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {}},
            "output": [
                {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
                {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}},
                {"type": "web_search_call", "status": "failed"},
                {"type": "web_search_call"},
            ],
        },
        {"input": 9, "output": 5, "searches": 2},
    ),
    (
        "searches told in usage and by items count once",
        "/responses",
        {
            "usage": {"input_tokens": 9, "output_tokens": 5, "tool_usage": {"web_search": {"num_requests": 3}}},
            "output": [{"type": "web_search_call"}],
        },
        {"input": 9, "output": 5, "searches": 3},
    ),
    (
        "audio by duration",
        "/audio/transcriptions",
        {"text": "x", "usage": {"type": "duration", "seconds": 61.2}},
        {"seconds": 62},
    ),
    (
        "usage in a choice",
        CHAT,
        {"choices": [{"message": {"content": "x"}, "usage": {"prompt_tokens": 5, "completion_tokens": 2}}]},
        {"input": 5, "output": 2},
    ),
    ("an empty usage", CHAT, {"choices": [{}], "usage": {}}, None),
    ("usage that is no object", CHAT, {"choices": [{}], "usage": [1]}, None),
]


def thinking(**usage: object) -> dict[str, Any]:
    return {"output": [{"type": "message"}], "content": [{"type": "text"}], "usage": usage}


# Where reasoning stands, and (other output, reasoning) as they are charged where reasoning has a price of its own.
REASONING: list[tuple[str, str, dict[str, Any], tuple[int, int]]] = [
    ("inside", CHAT, chat(1000, 100, 1100, completion_tokens_details={"reasoning_tokens": 60}), (40, 60)),
    ("inside, without a total", CHAT, chat(1000, 100, completion_tokens_details={"reasoning_tokens": 60}), (40, 60)),
    ("beside", CHAT, chat(70, 12, 2482, completion_tokens_details={"reasoning_tokens": 2400}), (12, 2400)),
    ("beside, without a total", CHAT, chat(9, 5, completion_tokens_details={"reasoning_tokens": 40}), (5, 40)),
    ("more than there is", CHAT, chat(9, 5, 14, completion_tokens_details={"reasoning_tokens": 40}), (0, 5)),
    ("none", CHAT, chat(9, 5, 14, completion_tokens_details={"reasoning_tokens": 0}), (5, 0)),
    ("no count", CHAT, chat(9, 5, 14, completion_tokens_details={"reasoning_tokens": -3}), (5, 0)),
    ("told in the total alone", CHAT, chat(40, 15, 855), (15, 800)),
    (
        "beside sound",
        CHAT,
        chat(9, 50, 59, completion_tokens_details={"reasoning_tokens": 30, "audio_tokens": 25}),
        (0, 25),
    ),
    ("at the top", CHAT, chat(9, 50, 59, reasoning_tokens=30), (20, 30)),
    ("Perplexity's, beside", CHAT, chat(33, 7, 40, citation_tokens=0, reasoning_tokens=95), (7, 95)),
    (
        "Responses",
        "/responses",
        thinking(input_tokens=9, output_tokens=50, total_tokens=59, output_tokens_details={"reasoning_tokens": 30}),
        (20, 30),
    ),
    (
        "Anthropic",
        "/messages",
        thinking(
            input_tokens=9,
            output_tokens=50,
            cache_read_input_tokens=100,
            output_tokens_details={"thinking_tokens": 30},
        ),
        (20, 30),
    ),
    (
        "Gemini",
        CHAT,
        {
            "candidates": [{"content": {"parts": []}}],
            "usageMetadata": {
                "promptTokenCount": 9,
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 30,
                "totalTokenCount": 59,
            },
        },
        (20, 30),
    ),
]

# A usage of which a part is told, what of it is missing, and its counts with an estimate of 500 and 20 tokens.
PARTLY_TOLD: list[tuple[str, str, dict[str, Any], str, dict[str, int]]] = [
    ("output alone", CHAT, {"completion_tokens": 3000}, "input", {"input": 500, "output": 3000}),
    ("input alone", CHAT, {"prompt_tokens": 3000}, "output", {"input": 3000, "output": 20}),
    ("true", CHAT, {"prompt_tokens": True, "completion_tokens": 2900}, "input", {"input": 500, "output": 2900}),
    ("negative", CHAT, {"prompt_tokens": -1, "completion_tokens": 2900}, "input", {"input": 500, "output": 2900}),
    ("null", CHAT, {"prompt_tokens": 2900, "completion_tokens": None}, "output", {"input": 2900, "output": 20}),
    ("text", CHAT, {"prompt_tokens": 2900, "completion_tokens": "many"}, "output", {"input": 2900, "output": 20}),
    ("Responses", "/responses", {"output_tokens": 3000}, "input", {"input": 500, "output": 3000}),
    ("Anthropic", "/messages", {"input_tokens": 3000}, "output", {"input": 3000, "output": 20}),
    (
        "Anthropic's cache, without its input",
        "/messages",
        {"output_tokens": 9, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 40},
        "input",
        {"input": 160, "cached": 300, "cache_write_5m": 40, "output": 9},
    ),
    (
        "cached without the prompt",
        CHAT,
        {"completion_tokens": 9} | details(cached_tokens=900),
        "input",
        {"cached": 900, "output": 9},
    ),
    (
        "sound without the prompt",
        CHAT,
        {"completion_tokens": 9} | details(audio_tokens=100),
        "input",
        {"input": 400, "audio_input": 100, "output": 9},
    ),
    (
        "reasoning without the completion",
        CHAT,
        {"prompt_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 64}},
        "output",
        {"input": 7, "output": 64},
    ),
    (
        "reasoning alone",
        CHAT,
        {"completion_tokens_details": {"reasoning_tokens": 64}},
        "input output",
        {"input": 500, "output": 64},
    ),
    ("a total of zero", CHAT, {"completion_tokens": 9, "total_tokens": 0}, "input", {"input": 500, "output": 9}),
    ("a total of output", CHAT, {"completion_tokens": 9, "total_tokens": 9}, "input", {"input": 500, "output": 9}),
    ("a total below the input", CHAT, {"prompt_tokens": 9, "total_tokens": 3}, "output", {"input": 9, "output": 20}),
    ("searches alone", CHAT, {"num_search_queries": 2}, "input output", {"input": 500, "output": 20, "searches": 2}),
    ("output from the total", CHAT, {"prompt_tokens": 9, "total_tokens": 30}, "", {"input": 9, "output": 21}),
    ("input from the total", CHAT, {"completion_tokens": 9, "total_tokens": 30}, "", {"input": 21, "output": 9}),
    ("all", CHAT, {"prompt_tokens": 9, "completion_tokens": 0}, "", {"input": 9}),
]


ERRORS: list[tuple[str, bytes, tuple[int, str]]] = [
    ("code as status", b'{"error": {"code": 503, "message": "no"}}', (503, "503")),
    ("type", b'{"error": {"type": "overloaded_error", "message": "no"}, "type": "error"}', (529, "overloaded_error")),
    ("code", b'{"error": {"code": "rate_limit_exceeded", "message": "no"}}', (429, "rate_limit_exceeded")),
    ("xAI", b'{"code": "The model was not_found", "error": "no"}', (404, "The model was not_found")),
    ("text", b'{"error": "no"}', (502, "upstream_error")),
    ("Gemini", b'[{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}]', (429, "429")),
    (
        "Mistral",
        b'{"object": "error", "message": "no", "type": "invalid_request_error", "code": "3000"}',
        (400, "3000"),
    ),
    ("Cohere", b'{"id": "x", "message": "no"}', (502, "upstream_error")),
    ("FastAPI", b'{"detail": "no"}', (502, "upstream_error")),
    ("FastAPI's list", b'{"detail": [{"loc": ["body"], "msg": "no", "type": "missing"}]}', (422, "upstream_error")),
    ("MiniMax", b'{"choices": null, "base_resp": {"status_code": 1008, "status_msg": "no"}}', (502, "1008")),
    (
        "failed response",
        b'{"object": "response", "status": "failed", "error": {"code": "server_error", "message": "no"}, "output": []}',
        (502, "server_error"),
    ),
    (
        "failed without a word",
        b'{"object": "response", "status": "failed", "error": null, "output": []}',
        (502, "upstream_error"),
    ),
    (
        "choice",
        b'{"choices": [{"message": {}, "finish_reason": "error", "error": {"code": 502, "message": "no"}}]}',
        (502, "502"),
    ),
    (
        "finish_reason alone",
        b'{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}',
        (502, "upstream_error"),
    ),
    ("HTML", b"  <!DOCTYPE html><p>Sign in", (502, "invalid_answer")),
    ("not JSON", b"upstream connect error", (502, "invalid_answer")),
    ("a number", b"12", (502, "invalid_answer")),
    ("empty", b"", (502, "empty_answer")),
    ("blank", b"\n \n", (502, "empty_answer")),
    ("no output and no usage", b'{"choices": [], "id": "x", "model": "m"}', (502, "empty_answer")),
    ("another page's JSON", b'{"ok": true}', (502, "empty_answer")),
    ("deep", b'{"choices":' + b"[" * 100_000, (502, "invalid_answer")),
]
