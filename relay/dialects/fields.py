"""The verdict on each top-level field, as rows of a table, and the rows that several endpoints share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.dialects.ask import Need, Pointer
from relay.dialects.names import (
    BUDGET_NAMES,
    CHOICE,
    CHOICE_NAMES,
    CONTAINERS,
    ELSEWHERE,
    LIMIT_NAMES,
    REFUSED_NAMES,
    SPELLING,
    THINKING_NAMES,
    UNATTENDED,
    UNBOUNDED,
    canonical,
    guard,
    unsupported,
    words,
)
from relay.dialects.reading import Reading, boolean, choices, completion_limit, integer, mapping, objects, text
from relay.errors import invalid
from relay.pricing import MAX_TOKENS

# Judges a value at a path: of a top-level field, its name.
Judge = Callable[[Reading, Any, str], None]


class Verdict(StrEnum):
    PASSES = "passes"
    BOUND = "is in the bound"
    PRICED = "needs a price"
    POINTER = "must be the caller's own"
    REFUSE = "is refused"
    WRITTEN = "is written by the relay"
    PSEUDONYM = "becomes a pseudonym"


@dataclass(frozen=True, slots=True)
class Row:
    """A field's verdict. `judge` raises ApiError 400, or notes what the field costs; without one, nothing is noted."""

    verdict: Verdict
    judge: Judge | None = None


Table = Mapping[str, Row]


def plain(reading: Reading, value: Any, name: str) -> None:
    """The value passes, unless it is a structure with a refused name in it."""
    if isinstance(value, CONTAINERS):
        guard(value, name, is_unknown=True)


# Of answers' formats and of choices among tools: what is under these names is the client's own.
_SCHEMAS = frozenset(
    words("""
    schema properties patternProperties $defs definitions parameters default example examples const enum json
    structures tags structural_tag choice
    """)
)
_TOOL_NAMES = frozenset({"tools"})


def answer_format(reading: Reading, value: Any, name: str) -> None:
    """A JSON schema in it may name properties as it likes."""
    if isinstance(value, CONTAINERS):
        guard(value, name, free=_SCHEMAS)


def tool_choice(reading: Reading, value: Any, name: str) -> None:
    if isinstance(value, CONTAINERS):
        guard(value, name, free=_TOOL_NAMES)


def refuse(reason: str) -> Judge:
    def judge(reading: Reading, value: Any, name: str) -> None:
        # Clients send these to say that they do not use the field.
        if value is None or value is False or value == []:
            del reading.fields[name]
            return
        raise unsupported(name, reason)

    return judge


def _rewritten(reading: Reading, value: Any, name: str) -> None:
    if value is None:
        del reading.fields[name]
    else:
        reading.written.append(name)


def stream(reading: Reading, value: Any, name: str) -> None:
    reading.is_stream = boolean(value, name)


def stream_options(reading: Reading, value: Any, name: str) -> None:
    # body_for writes it anew; without include_usage the relay withholds the usage from the client.
    options = mapping(value or {}, name)
    guard(options, name, is_unknown=True)
    reading.shows_usage = boolean(options.get("include_usage"), f"{name}.include_usage")


def store(reading: Reading, value: Any, name: str) -> None:
    if not boolean(value, name):
        reading.fields[name] = False


def metadata(reading: Reading, value: Any, name: str) -> None:
    """Scalars only, as at OpenAI: proxies take lists and objects in it for settings of their own."""
    if value is None:
        del reading.fields[name]
        return
    for key, inner in mapping(value, name).items():
        if isinstance(inner, CONTAINERS):
            raise unsupported(f"{name}.{key}", CHOICE)


# What clients call the standard price.
_STANDARD = {"service_tier": ("auto", "default", "standard", "on_demand", "standard_only")}
_FREE = {"speed": ("standard", "normal"), "inference_geo": ("global",)}
_SYNONYMS = {"fast": "priority"}


def service_tier(reading: Reading, value: Any, name: str) -> None:
    """Every tier but the standard one needs a price row. `auto` follows the provider's settings, so it is not sent."""
    if value is None:
        del reading.fields[name]
        return
    tier = text(value, name).lower()
    if tier in _STANDARD[name]:
        reading.fields[name] = "default" if tier == "auto" else value
    else:
        _priced(reading, name, _SYNONYMS.get(tier, tier))


def priced_value(reading: Reading, value: Any, name: str) -> None:
    if value is None:
        del reading.fields[name]
    elif text(value, name).lower() not in _FREE[name]:
        _priced(reading, name, value.lower())


def _priced(reading: Reading, name: str, value: str) -> None:
    reading.needs.append(Need(name, f"{name}={value}"))
    reading.facts[name] = value


def moderation(reading: Reading, value: Any, name: str) -> None:
    """It names a second model, which must be one that the operator has a price row for."""
    if value is not None:
        model = text(mapping(value, name).get("model"), f"{name}.model")
        guard(value, name, is_unknown=True, free=frozenset({"model"}))
        reading.needs.append(Need(f"{name}.model", f"moderation={model}"))


# -- Sound ------------------------------------------------------------------------------------------------------------


def modalities(reading: Reading, value: Any, name: str) -> None:
    for at, kind in enumerate(objects(value or [], name)):
        # Gemini writes them in capitals.
        said = kind.lower() if isinstance(kind, str) else kind
        if said == "audio":
            _speak(reading, name)
        elif said != "text":
            raise unsupported(f"{name}[{at}]", UNBOUNDED)


def spoken_answer(reading: Reading, value: Any, name: str) -> None:
    if value is None:
        del reading.fields[name]
        return
    if isinstance(mapping(value, name).get("voice"), dict):
        raise unsupported(f"{name}.voice.id", ELSEWHERE)
    guard(value, name, is_unknown=True, free=frozenset({"voice"}))
    _speak(reading, name)


def _speak(reading: Reading, name: str) -> None:
    if not reading.has_audio_output:
        reading.has_audio_output = True
        reading.needs.append(Need(name, "audio_output"))


# -- Prompt caching ---------------------------------------------------------------------------------------------------

# Short writes are assumed in every bound; a longer one needs a price.
_CACHE_WRITES = {"5m": "", "30m": "", "1h": "cache_write_1h", "12h": "cache_write_12h"}


def cache_mark(reading: Reading, value: Any, param: str) -> None:
    """Judge `cache_control` and `prompt_cache_breakpoint`, wherever they stand."""
    if value is None:
        return
    guard(mapping(value, param), param)
    for key in value:
        if key != "ttl" and canonical(key) == "ttl":
            raise unsupported(f"{param}.{key}", SPELLING)
    lifetime = value.get("ttl")
    price = _CACHE_WRITES.get(lifetime or "5m") if isinstance(lifetime, str | None) else None
    if price is None:
        raise invalid(f"{param}.ttl must be one of {', '.join(_CACHE_WRITES)}.", f"{param}.ttl")
    if price and price not in reading.cache_writes:
        reading.cache_writes.add(price)
        reading.needs.append(Need(f"{param}.ttl", price))


def cache_options(reading: Reading, value: Any, name: str) -> None:
    cache_mark(reading, value, name)
    if value and value.get("comparison_response_id") is not None:
        pointed = text(value["comparison_response_id"], f"{name}.comparison_response_id")
        reading.pointers.append(Pointer(f"{name}.comparison_response_id", pointed))


def cache_key(reading: Reading, value: Any, name: str) -> None:
    _rewritten(reading, value, name)
    if value is not None:
        reading.conversation = reading.conversation or text(value, name)


# -- Thinking ---------------------------------------------------------------------------------------------------------


def reasoning(reading: Reading, value: Any, name: str) -> None:
    """Reasoning is inside the limit, except in pro mode: that is several runs, whose number nobody tells."""
    if not isinstance(value, dict):
        plain(reading, value, name)
        return
    if value.get("mode") not in (None, "standard"):
        raise unsupported(f"{name}.mode", UNBOUNDED)
    # OpenRouter's budget for reasoning is a part of the limit, although it bears the limit's name.
    guard(value, name, is_unknown=True, free=frozenset({"max_tokens", "mode"}))
    if value.get("max_tokens") is not None:
        integer(value["max_tokens"], f"{name}.max_tokens", maximum=MAX_TOKENS)


def minimum(reading: Reading, value: Any, name: str) -> None:
    _rewritten(reading, value, name)
    if value is not None:
        integer(value, name, maximum=MAX_TOKENS, minimum=0)


def thinking_budget(reading: Reading, value: Any, name: str) -> None:
    """DashScope's budget may be beside the limit: both are held, and the budget is at most the limit."""
    if value is None:
        del reading.fields[name]
        return
    integer(value, name, maximum=MAX_TOKENS, minimum=0)
    _think_beside(reading, name)


def enable_thinking(reading: Reading, value: Any, name: str) -> None:
    if boolean(value, name):
        _think_beside(reading, "thinking_budget")


def _think_beside(reading: Reading, budget: str) -> None:
    reading.outputs_factor = 2
    if budget not in reading.written:
        reading.written.append(budget)


# vLLM's gpt-oss template has a sentence under `model_identity`.
_TEMPLATE_TEXTS = frozenset({*THINKING_NAMES, "model_identity"})


def template_values(reading: Reading, value: Any, name: str) -> None:
    """Thinking that is turned on in here is held as thinking that is turned on at the top."""
    if value is None:
        return
    thinks = False
    for key, inner in mapping(value, name).items():
        # -1 is Seed-OSS's word for no budget.
        if key in BUDGET_NAMES and inner is not None and inner != -1:
            integer(inner, f"{name}.{key}", maximum=MAX_TOKENS, minimum=0)
        thinks = thinks or (key in THINKING_NAMES and inner is not None and inner is not False)
    guard(value, name, free=_TEMPLATE_TEXTS)
    if thinks:
        _think_beside(reading, name)


# -- Shared rows ------------------------------------------------------------------------------------------------------

PASS = Row(Verdict.PASSES, plain)
FORMAT = Row(Verdict.PASSES, answer_format)
TOOL_CHOICE = Row(Verdict.PASSES, tool_choice)
# Free-form data of the client: names in it mean nothing to the provider. Its bytes are held as text.
OPEN = Row(Verdict.PASSES)
BOUND = Row(Verdict.BOUND, plain)
PSEUDONYM = Row(Verdict.PSEUDONYM, _rewritten)
BACKGROUND = Row(Verdict.REFUSE, refuse(UNATTENDED))
PROMPT_BY_ID = Row(Verdict.REFUSE, refuse(ELSEWHERE))

REFUSED: Table = {
    name: Row(Verdict.REFUSE, refuse(reason)) for reason, names in REFUSED_NAMES.items() for name in names
}
LIMITS: Table = {name: Row(Verdict.WRITTEN, completion_limit) for name in LIMIT_NAMES}

# Fields of every endpoint, whoever's dialect they come from.
SHARED: Table = {
    **REFUSED,
    "model": Row(Verdict.WRITTEN),
    "background": BACKGROUND,
    "user": PSEUDONYM,
    "safety_identifier": PSEUDONYM,
    "user_id": PSEUDONYM,
    "service_tier": Row(Verdict.PRICED, service_tier),
    "speed": Row(Verdict.PRICED, priced_value),
    "inference_geo": Row(Verdict.PRICED, priced_value),
}
# Fields of the endpoints that generate text.
GENERATING: Table = {
    **SHARED,
    **LIMITS,
    **dict.fromkeys(CHOICE_NAMES, Row(Verdict.BOUND, choices)),
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "seed", "stop", "logprobs", "top_logprobs"), PASS),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "repetition_penalty"), PASS),
    **dict.fromkeys(("stop_token_ids", "bad_words_ids", "ignore_eos", "prompt_cache_retention"), PASS),
    **dict.fromkeys(("logit_bias", "json_schema", "grammar"), OPEN),
    "structured_outputs": FORMAT,
    **dict.fromkeys(("guided_json", "guided_choice", "guided_regex", "guided_grammar"), OPEN),
    "use_beam_search": BOUND,
    "min_tokens": Row(Verdict.WRITTEN, minimum),
    "stream": Row(Verdict.PASSES, stream),
    "stream_options": Row(Verdict.WRITTEN, stream_options),
    "store": Row(Verdict.WRITTEN, store),
    "metadata": Row(Verdict.WRITTEN, metadata),
    "prompt_cache_key": Row(Verdict.PSEUDONYM, cache_key),
    "prompt_cache_options": Row(Verdict.PRICED, cache_options),
    "cache_control": Row(Verdict.PRICED, cache_mark),
    **dict.fromkeys(
        ("modalities", "response_modalities", "responseModalities", "output_modalities"),
        Row(Verdict.PRICED, modalities),
    ),
    "audio": Row(Verdict.PRICED, spoken_answer),
    "moderation": Row(Verdict.PRICED, moderation),
    "reasoning": Row(Verdict.BOUND, reasoning),
    "enable_thinking": Row(Verdict.BOUND, enable_thinking),
    **dict.fromkeys(BUDGET_NAMES, Row(Verdict.BOUND, thinking_budget)),
    "chat_template_kwargs": Row(Verdict.BOUND, template_values),
}
