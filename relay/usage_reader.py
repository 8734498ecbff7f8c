"""Usage objects of all dialects, read into counts by canonical names, and split into the disjoint counts of Usage.

Providers mix dialects, so names decide, not the provider: `prompt_tokens` includes cached and written tokens, and so
does `input_tokens` with `input_tokens_details`; `input_tokens` with `cache_read_input_tokens` does not. Where a count
has several names, or stands in several events of a stream, the greatest value holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

from relay.pricing import MAX_TOKENS, Usage, valid_count

Counts = dict[str, int]
# What a usage object may contain: the canonical name of a count, or the table of an object inside.
Table = Mapping[str, Union[str, "Table"]]

# Endpoints whose models generate no tokens: all tokens are input.
_PATHS_WITHOUT_OUTPUT = frozenset({"/embeddings", "/rerank", "/moderations"})
# Endpoints whose models read and generate text: a usage without input or output is told in part.
GENERATING_PATHS = frozenset({"/chat/completions", "/completions", "/responses", "/messages"})
_PATHS_OF_PICTURES = frozenset({"/images/generations", "/images/edits"})
_WRITES = ("write_5m", "write_1h", "write_12h")
_LIFETIMES: Table = {
    "ephemeral_5m_input_tokens": "write_5m",
    "ephemeral_1h_input_tokens": "write_1h",
    "ttl_5m_tokens": "write_5m",
    # OpenAI's writes of 30 minutes are charged as short ones.
    "ttl_30m_tokens": "write_5m",
    "ttl_1h_tokens": "write_1h",
    "ttl_12h_tokens": "write_12h",
}
_INPUT_DETAILS: Table = {
    "cached_tokens": "cached",
    "cache_read_tokens": "cached",
    "cache_read_input_tokens": "cached",
    "cached_tokens_details": {"audio_tokens": "cached_audio", "image_tokens": "cached_image"},
    "cache_write_tokens": "written",
    "cache_creation_tokens": "written",
    "cache_creation_input_tokens": "written",
    "cache_write_tokens_details": _LIFETIMES,
    "cache_creation_token_details": _LIFETIMES,
    "cache_creation": _LIFETIMES,
    "audio_tokens": "audio_input",
    "image_tokens": "image_input",
}
_OUTPUT_DETAILS: Table = {
    "reasoning_tokens": "reasoning",
    "thinking_tokens": "thinking",
    "audio_tokens": "audio_output",
    "image_tokens": "image_output",
}
_USAGE: Table = {
    "prompt_tokens": "prompt",
    "promptTokenCount": "prompt",
    "input_tokens": "input",
    "inputTokens": "input",
    "toolUsePromptTokenCount": "tool_prompt",
    "completion_tokens": "output",
    "output_tokens": "output",
    "outputTokens": "output",
    "candidatesTokenCount": "output",
    "thoughtsTokenCount": "thoughts",
    "total_tokens": "total",
    "totalTokens": "total",
    "totalTokenCount": "total",
    "prompt_tokens_details": _INPUT_DETAILS,
    "prompt_token_details": _INPUT_DETAILS,
    "input_tokens_details": _INPUT_DETAILS,
    "input_token_details": _INPUT_DETAILS,
    "completion_tokens_details": _OUTPUT_DETAILS,
    "completion_token_details": _OUTPUT_DETAILS,
    "output_tokens_details": _OUTPUT_DETAILS,
    "output_token_details": _OUTPUT_DETAILS,
    "cached_tokens": "cached",
    "num_cached_tokens": "cached",
    "prompt_cache_hit_tokens": "cached",
    "cachedContentTokenCount": "cached",
    "cache_read_input_tokens": "cache_read",
    "cacheReadInputTokens": "cache_read",
    "cache_write_tokens": "written",
    "cache_creation_input_tokens": "cache_creation",
    "cacheWriteInputTokens": "cache_creation",
    "cache_creation": _LIFETIMES,
    "cache_write_tokens_details": _LIFETIMES,
    "reasoning_tokens": "top_reasoning",
    "citation_tokens": "citation",
    "prompt_audio_seconds": "seconds",
    "num_search_queries": "searches",
    "num_sources_used": "searches",
    "server_tool_use": {"web_search_requests": "searches"},
    "server_side_tool_usage_details": {"web_search_calls": "searches", "x_search_calls": "x_searches"},
    "tool_calls_details": {"search_web": {"invocation": "searches"}},
    "tool_usage": {"web_search": {"num_requests": "searches"}},
    # Cohere bills these; its `tokens` are more, and not billed.
    "billed_units": {
        "input_tokens": "input",
        "text_tokens": "input",
        "output_tokens": "output",
        "image_tokens": "beside_image",
        "search_units": "searches",
    },
}
_INPUTS = frozenset({"prompt", "input"})
_OUTPUT_PARTS = ("reasoning", "thinking", "audio_output", "image_output")
_OUTPUTS = (*_OUTPUT_PARTS, "thoughts", "top_reasoning", "citation")
_USUAL_COUNTS = frozenset({"prompt", "output", "total", "cached", "reasoning"})
# Details of the input, and whether their presence says that `input_tokens` includes cached and written tokens.
_INPUT_DETAILS_FIELDS = (
    ("prompt_tokens_details", False),
    ("prompt_token_details", False),
    ("input_tokens_details", True),
    ("input_token_details", True),
)
_XAI_FIELDS = frozenset(
    {"cost_in_usd_ticks", "num_sources_used", "num_server_side_tools_used", "server_side_tool_usage_details"}
)
_LISTS = frozenset({"promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails", "cacheDetails"})
# Gemini's details are lists of {modality, tokenCount}.
_MODALITIES = {
    ("promptTokensDetails", "AUDIO"): "audio_input",
    ("promptTokensDetails", "IMAGE"): "image_input",
    ("candidatesTokensDetails", "AUDIO"): "audio_output",
    ("candidatesTokensDetails", "IMAGE"): "image_output",
    ("cacheTokensDetails", "AUDIO"): "cached_audio",
    ("cacheTokensDetails", "IMAGE"): "cached_image",
}
# Counts beside the totals, charged at price rows of their own where the model has them.
_TOOL_OF_USAGE = {"image_gen": "image_generation"}
_TOOL_OF_ITERATION = {"compaction": "compaction", "advisor_message": "advisor"}


def add_usage(reported: Mapping[str, Any], counts: Counts) -> None:
    """Raise `counts` to what a usage object tells. Counts that are none are skipped."""
    _collect(reported, counts, _USAGE)
    if reported.get("type") == "duration":
        raise_count(counts, "seconds", reported.get("seconds"))
    for name in _LISTS.intersection(reported):
        if type(entries := reported[name]) is list:
            _collect_list(name, entries, counts)
    counts.update(dict.fromkeys(_marks(reported), 1))


def tools_of(reported: Mapping[str, Any], tool_usage: object) -> Iterator[tuple[str, Counts]]:
    """Counts that stand beside the totals: OpenAI's hosted tools, and Anthropic's inner runs (`iterations`)."""
    for usage in (tool_usage, reported.get("tool_usage")):
        if isinstance(usage, dict):
            for field, name in _TOOL_OF_USAGE.items():
                if isinstance(told := usage.get(field), dict):
                    counts: Counts = {}
                    add_usage(told, counts)
                    yield name, counts
    iterations = reported.get("iterations")
    yield from _iterations(iterations if isinstance(iterations, list) else ())


def raise_count(counts: Counts, name: str, value: object) -> None:
    count = valid_count(value)
    if count is not None and count > counts.get(name, -1):
        counts[name] = count


def usage_of(
    counts: Mapping[str, int], *, path: str, cache_write: str = "", tools: Iterable[tuple[str, Usage]] = ()
) -> Usage | None:
    """The disjoint counts; None if none was told. `missing_halves` says which are none at all.

    `cache_write` is the lifetime that the request asked for ("1h" or "12h"). It holds for cache writes whose lifetime
    the answer does not tell.
    """
    searches, seconds = counts.get("searches", 0) + counts.get("x_searches", 0), counts.get("seconds", 0)
    tokens, beside = _tokens(counts, path, cache_write), tuple(tools)
    if not tokens and not searches and not seconds and not beside:
        return None
    return Usage(searches=min(searches, MAX_TOKENS), seconds=seconds, tools=beside, **tokens)


def missing_halves(counts: Mapping[str, int], path: str) -> tuple[bool, bool]:
    """Whether (input, output) was not told, and does not follow from the total either."""
    if path not in GENERATING_PATHS:
        return False, False
    total, has_input, has_output = counts.get("total", 0), not _INPUTS.isdisjoint(counts), "output" in counts
    is_input_missing = not has_input and not (has_output and total > counts["output"])
    is_output_missing = not has_output and not (has_input and total >= _told_input(counts))
    return is_input_missing, is_output_missing


def _marks(reported: Mapping[str, Any]) -> Iterator[str]:
    """What names say about the dialect, besides counts."""
    for name, is_inside in _INPUT_DETAILS_FIELDS:
        if type(details := reported.get(name)) is dict:
            if is_inside:
                yield "is_inside"
            if details.get("cache_type"):
                yield "is_explicit"
    if not _XAI_FIELDS.isdisjoint(reported):
        yield "is_xai"


def _collect(reported: Mapping[str, Any], counts: Counts, table: Table) -> None:
    for name, value in reported.items():
        target = table.get(name)
        if target is None:
            continue
        if type(target) is str:
            count = value if type(value) is int and 0 <= value <= MAX_TOKENS else valid_count(value)
            if count is not None and count > counts.get(target, -1):
                counts[target] = count
        elif type(value) is dict:
            _collect(value, counts, target)  # type: ignore[arg-type]  # a table, since it is no str


def _collect_list(name: str, entries: list[Any], counts: Counts) -> None:
    for entry in entries:
        if type(entry) is not dict:
            continue
        if name == "cacheDetails":
            raise_count(counts, f"write_{entry.get('ttl')}", entry.get("inputTokens"))
        elif type(modality := entry.get("modality")) is str and (target := _MODALITIES.get((name, modality.upper()))):
            raise_count(counts, target, entry.get("tokenCount"))


def _iterations(entries: Iterable[Any]) -> Iterator[tuple[str, Counts]]:
    sums: dict[str, Counts] = {}
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if isinstance(kind, str) and (name := _TOOL_OF_ITERATION.get(kind)):
            counts: Counts = {}
            add_usage(entry, counts)
            total = sums.setdefault(name, {})
            for each, count in counts.items():
                total[each] = min(total.get(each, 0) + count, MAX_TOKENS)
    yield from sums.items()


def _tokens(counts: Mapping[str, int], path: str, cache_write: str) -> dict[str, int]:
    if (usual := _usual_tokens(counts, path)) is not None:
        return usual
    return _all_tokens(counts, path, cache_write)


def _usual_tokens(counts: Mapping[str, int], path: str) -> dict[str, int] | None:
    """What `_all_tokens` makes of the usual counts, by a shorter way."""
    input_tokens, output, cached = counts.get("prompt", 0), counts.get("output", 0), counts.get("cached", 0)
    is_usual = counts.get("total") == input_tokens + output and "output" in counts and cached <= input_tokens
    is_usual = is_usual and "prompt" in counts and path not in _PATHS_OF_PICTURES
    if not is_usual or any(counts[name] for name in counts.keys() - _USUAL_COUNTS):
        return None
    inside = min(counts.get("reasoning", 0), output)
    return {"input": input_tokens - cached, "cached": cached, "output": output, "reasoning_inside": inside}


def _all_tokens(counts: Mapping[str, int], path: str, cache_write: str) -> dict[str, int]:
    base = _base_input(counts, path)
    if base is None:
        return {}
    output = counts.get("output", 0)
    cached, written = _caches(counts)
    all_input, told_input = _input_totals(counts, base, cached, written, output)
    cached = min(cached, all_input)
    writes = _writes(counts, min(written, all_input - cached), cache_write)
    plain = all_input - cached - sum(writes.values())
    audio, image = _overlapping(plain, counts, "audio_input", "image_input")
    return {
        "input": plain - audio - image,
        ("cached_explicit" if "is_explicit" in counts else "cached"): cached,
        **writes,
        "audio_input": audio,
        "image_input": image + counts.get("beside_image", 0),
        **_outputs(counts, path, told_input),
    }


def _base_input(counts: Mapping[str, int], path: str) -> int | None:
    """The told input; what output leaves of the total; else what the details tell. None if no token was told."""
    if path in _PATHS_WITHOUT_OUTPUT:
        is_told = "total" in counts or "beside_image" in counts or not _INPUTS.isdisjoint(counts)
        return max(_told_input(counts), counts.get("total", 0) - counts.get("output", 0)) if is_told else None
    if "output" in counts and _INPUTS.isdisjoint(counts) and counts.get("total", 0) > counts["output"]:
        return counts["total"] - counts["output"]
    details = 0 if not _INPUTS.isdisjoint(counts) else sum(_caches(counts)) + sum(_media_input(counts))
    base = max(_told_input(counts), details)
    return base if base or "output" in counts or any(map(counts.get, _OUTPUTS)) else None


def _told_input(counts: Mapping[str, int]) -> int:
    return max(counts.get("prompt", 0), counts.get("input", 0)) + counts.get("tool_prompt", 0)


def _media_input(counts: Mapping[str, int]) -> Iterator[int]:
    return _overlapping(2 * MAX_TOKENS, counts, "audio_input", "image_input")


def _is_beside(counts: Mapping[str, int]) -> bool:
    """Whether cached and written tokens stand beside `input_tokens`, as Anthropic and Bedrock tell them."""
    is_openai = counts.get("prompt", 0) > 0 or "input" not in counts or "is_inside" in counts or "reasoning" in counts
    return not is_openai and ("cache_read" in counts or "cache_creation" in counts)


def _caches(counts: Mapping[str, int]) -> tuple[int, int]:
    """(cached, written) tokens under whatever name."""
    cached, written = counts.get("cache_read", 0), counts.get("cache_creation", 0)
    if not _is_beside(counts):
        cached, written = max(cached, counts.get("cached", 0)), max(written, counts.get("written", 0))
    return cached, max(written, sum(counts.get(name, 0) for name in _WRITES))


def _input_totals(counts: Mapping[str, int], base: int, cached: int, written: int, output: int) -> tuple[int, int]:
    """(all input tokens, those that the told total includes).

    Some gateways name tokens as OpenAI does but tell cached ones beside the prompt: their total is the sum of all. xAI
    does so where more tokens are cached than the prompt has, and so do those that use Anthropic's names, or that tell
    more cached tokens than the prompt has and no total which says that the prompt includes them.
    """
    total, reasoning = counts.get("total", 0), counts.get("reasoning", 0)
    everything = min(base + cached + written, MAX_TOKENS)
    is_reasoning_beside = reasoning > 0 and total == base + output + reasoning
    is_sum = not is_reasoning_beside and total in (everything + output, everything + output + reasoning)
    is_covered = cached > base and total >= everything + output
    if _is_beside(counts) or (is_sum and everything > base) or is_covered:
        return everything, everything
    is_greater = cached > base and ("is_xai" in counts or not total)
    if is_greater or counts.get("cache_read", 0) + counts.get("cache_creation", 0) > base:
        return everything, base
    return min(base, MAX_TOKENS), base


def _writes(counts: Mapping[str, int], written: int, cache_write: str) -> dict[str, int]:
    split = {name: counts.get(name, 0) for name in _WRITES}
    unnamed = f"write_{cache_write}" if f"write_{cache_write}" in split else "write_5m"
    split[unnamed] += max(0, written - sum(split.values()))
    left, writes = written, {}
    for name in _WRITES:
        writes[f"cache_{name}"] = min(split[name], left)
        left -= writes[f"cache_{name}"]
    return writes


def _overlapping(plain: int, counts: Mapping[str, int], *names: str) -> Iterator[int]:
    """Tokens of sound and of pictures among the plain ones. Those that are cached as well count as cached."""
    for name in names:
        own = counts.get(name, 0) - counts.get(f"cached_{name.removesuffix('_input')}", 0)
        taken = max(0, min(own, plain))
        plain -= taken
        yield taken


def _outputs(counts: Mapping[str, int], path: str, told_input: int) -> dict[str, int]:
    """Output by kind. Reasoning is inside of it, unless total or names show that it stands beside.

    Perplexity's citations and reasoning stand beside completion, have prices of their own, and need not be in total.
    """
    if path in _PATHS_WITHOUT_OUTPUT and "output" not in counts:
        return {}
    total, reasoning = counts.get("total", 0), counts.get("reasoning", 0)
    # Without a count of all output, there is at least what the details tell.
    told = counts.get("output", sum(counts.get(name, 0) for name in _OUTPUT_PARTS))
    citation, beside = counts.get("citation", 0), _perplexity_reasoning(counts, told)
    output = max(told + counts.get("thoughts", 0), total - told_input - citation - beside)
    if reasoning > told and total < told_input + told:
        output = max(output, told + reasoning)
    output = min(output, MAX_TOKENS)
    names = ("audio_output", "image_output")
    if path in _PATHS_OF_PICTURES and not any(name in counts for name in names):
        return {"image_output": output}
    audio, image = _overlapping(output, counts, *names)
    plain, inside = output - audio - image, 0 if beside else _reasoning_inside(counts, output)
    return {
        "output": plain,
        "reasoning_inside": min(plain, inside),
        "audio_output": audio,
        "image_output": image,
        "reasoning": beside,
        "citation": citation,
    }


def _reasoning_inside(counts: Mapping[str, int], output: int) -> int:
    """Told under some name; else it is what Gemini's total has beyond the told output."""
    told = max(counts.get(name, 0) for name in ("reasoning", "thoughts", "thinking", "top_reasoning"))
    return told or (output - counts["output"] if "output" in counts else 0)


def _perplexity_reasoning(counts: Mapping[str, int], output: int) -> int:
    reasoning = counts.get("top_reasoning", 0)
    return reasoning if "citation" in counts or reasoning > output else 0
