"""Answers as each provider writes them, and where they tell the usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.relay.provider.kinds import Kind
from tests.relay.provider.prices import Bill, Prices

WORDS = ("Each ", "word ", "is ", "delivered ", "as ", "it ", "was ", "sent.")
Json = dict[str, Any]


# -- Usage ------------------------------------------------------------------------------------------------------------


def _plain(bill: Bill, prices: Prices) -> Json:
    return {
        "prompt_tokens": bill.input_tokens,
        "completion_tokens": bill.output_tokens,
        "total_tokens": bill.input_tokens + bill.output_tokens,
    }


def _openai(bill: Bill, prices: Prices) -> Json:
    inside = {"cached_tokens": bill["cached_input"], "cache_write_tokens": _written(bill)} | _lifetimes(bill)
    inside |= _media(bill)
    made = {"reasoning_tokens": bill.reasoning, "audio_tokens": bill["audio_output"]}
    return _plain(bill, prices) | {"prompt_tokens_details": inside, "completion_tokens_details": made}


def _lifetimes(bill: Bill) -> Json:
    if not bill["cache_write_12h"]:
        return {}
    ttls = {"ttl_30m_tokens": bill["cache_write_5m"], "ttl_12h_tokens": bill["cache_write_12h"]}
    return {"cache_write_tokens_details": ttls}


def _written(bill: Bill) -> int:
    return bill["cache_write_5m"] + bill["cache_write_1h"] + bill["cache_write_12h"]


def _media(bill: Bill) -> Json:
    return {"audio_tokens": bill["audio_input"], "image_tokens": bill["image_input"]}


def _xai(bill: Bill, prices: Prices) -> Json:
    """Reasoning stands beside the completion."""
    told = _plain(bill, prices)
    told["completion_tokens"] -= bill.reasoning
    return told | {
        "prompt_tokens_details": {"cached_tokens": bill["cached_input"], **_media(bill)},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning},
        "num_sources_used": 0,
        "cost_in_usd_ticks": bill.nanos(prices) * 10,
    }


def _gemini(bill: Bill, prices: Prices) -> Json:
    """Reasoning only shows as the difference of the total."""
    told = _plain(bill, prices)
    told["completion_tokens"] -= bill.reasoning
    return told


def _moonshot(bill: Bill, prices: Prices) -> Json:
    return _plain(bill, prices) | {"cached_tokens": bill["cached_input"]}


def _deepseek(bill: Bill, prices: Prices) -> Json:
    hit = bill["cached_input"]
    return _plain(bill, prices) | {
        "prompt_cache_hit_tokens": hit,
        "prompt_cache_miss_tokens": bill.input_tokens - hit,
    }


def _mistral(bill: Bill, prices: Prices) -> Json:
    return _plain(bill, prices) | {"num_cached_tokens": bill["cached_input"]}


def _openrouter(bill: Bill, prices: Prices) -> Json:
    inside = {"cached_tokens": bill["cached_input"], "cache_write_tokens": _written(bill)}
    return _plain(bill, prices) | {
        "prompt_tokens_details": inside | _media(bill),
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning},
        "cost": bill.nanos(prices) / 1e9,
        "cost_details": {"upstream_inference_cost": None},
    }


def _vllm(bill: Bill, prices: Prices) -> Json:
    inside = {"cached_tokens": bill["cached_input"], **_media(bill)}
    return _plain(bill, prices) | {"prompt_tokens_details": inside}


def _anthropic_names(bill: Bill, prices: Prices) -> Json:
    """Beside prompt_tokens, these names are inside it."""
    return _plain(bill, prices) | {
        "cache_read_input_tokens": bill["cached_input"],
        "cache_creation_input_tokens": _written(bill),
        "prompt_tokens_details": {"cached_tokens": bill["cached_input"]},
    }


USAGES: dict[str, Callable[[Bill, Prices], Json]] = {
    "plain": _plain,
    "openai": _openai,
    "xai": _xai,
    "gemini": _gemini,
    "moonshot": _moonshot,
    "deepseek": _deepseek,
    "mistral": _mistral,
    "openrouter": _openrouter,
    "vllm": _vllm,
    "anthropic_names": _anthropic_names,
}


def chat_usage(kind: Kind, bill: Bill, prices: Prices, numbers: str) -> Json:
    return _in_style(USAGES[kind.usage](bill, prices), numbers)


def responses_usage(bill: Bill, numbers: str) -> Json:
    inside = {"cached_tokens": bill["cached_input"], "cache_write_tokens": _written(bill)} | _lifetimes(bill)
    told = {
        "input_tokens": bill.input_tokens,
        "input_tokens_details": inside | _media(bill),
        "output_tokens": bill.output_tokens,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning},
        "total_tokens": bill.input_tokens + bill.output_tokens,
    }
    return _in_style(told, numbers)


def _in_style(usage: Json, numbers: str) -> Json:
    return {name: _rewritten(value, numbers) for name, value in usage.items()}


def _rewritten(value: Any, numbers: str) -> Any:
    if isinstance(value, dict):
        return _in_style(value, numbers)
    if type(value) is int and numbers != "int":
        return float(value) if numbers == "float" else str(value)
    return value


# -- Answers ----------------------------------------------------------------------------------------------------------


def _facts(bill: Bill) -> Json:
    return {"service_tier": bill.facts["service_tier"]} if "service_tier" in bill.facts else {}


def chat_json(head: Json, bill: Bill, usage: Json | None) -> Json:
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "text": "".join(WORDS), "finish_reason": "stop"}
    return head | {"choices": [choice], **_facts(bill)} | ({"usage": usage} if usage else {})


def response_json(head: Json, bill: Bill, usage: Json | None) -> Json:
    content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    tools = {"tool_usage": {"web_search": {"num_requests": bill["searches"]}}} if bill["searches"] else {}
    status = "completed" if usage else "queued"
    return head | {"status": status, "output": [message], "usage": usage, **_facts(bill), **tools}


def embeddings_json(head: Json, bill: Bill) -> Json:
    usage = {"prompt_tokens": bill.input_tokens, "total_tokens": bill.input_tokens}
    return head | {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": usage}


def chat_events(kind: Kind, head: Json, bill: Bill, usage: Json, options: Json) -> Iterator[bytes]:
    """A stream of chat or completions, with the usage where this provider tells it."""
    facts, is_asked = _facts(bill), bool(options.get("include_usage"))
    is_continuous = is_asked and bool(options.get("continuous_usage_stats"))
    if kind.name == "openrouter":
        yield b": OPENROUTER PROCESSING\n\n"
    for place, word in enumerate(WORDS):
        choice = {"index": 0, "delta": {"content": word}, "text": word, "finish_reason": None}
        so_far = {"usage": _so_far(usage, place)} if is_continuous else {}
        yield _event(head | {"choices": [choice], **facts, **so_far})
    yield _event(_finish(kind, head, usage) | facts)
    if kind.stream_usage == "always" or (kind.stream_usage in ("asked", "x_groq") and is_asked):
        yield _event(head | {"choices": [], "usage": usage, **facts})
    yield b"data: [DONE]\n\n"


def _so_far(usage: Json, place: int) -> Json:
    return {**usage, "completion_tokens": place, "total_tokens": place}


def _finish(kind: Kind, head: Json, usage: Json) -> Json:
    choice: Json = {"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}
    match kind.stream_usage:
        case "finish":
            return head | {"choices": [choice], "usage": usage}
        case "choice":
            return head | {"choices": [choice | {"usage": usage}]}
        case "x_groq":
            return head | {"choices": [choice], "x_groq": {"id": "req_1", "usage": usage | {"queue_time": 0.01}}}
    return head | {"choices": [choice]}


def response_events(head: Json, bill: Bill, usage: Json) -> Iterator[bytes]:
    yield _named("response.created", {"response": head | {"status": "in_progress", "usage": None}})
    for word in WORDS:
        yield _named("response.output_text.delta", {"delta": word})
    yield _named("response.completed", {"response": response_json(head, bill, usage)})


def _named(name: str, content: Json) -> bytes:
    return f"event: {name}\n".encode() + _event({"type": name, **content})


def _event(content: Json) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()
