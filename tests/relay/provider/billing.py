"""The bill of a request: the most that its documentation allows the provider to charge for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.relay.provider.bodies import Refused, whole_number
from tests.relay.provider.contents import PICTURE_TOKENS, SOUND_TOKENS_PER_S, Contents
from tests.relay.provider.kinds import Kind
from tests.relay.provider.prices import NANOS_PER_USD, Bill, Offer

# A hosted tool is called as often as the request allows; without a limit, so often.
TOOL_CALLS = 10
MAX_CHOICES = 128
SEARCH_NANOS = NANOS_PER_USD // 100
# What no price list of ours knows, at the dearest that a provider lists for it.
OTHER_TOOL_NANOS = NANOS_PER_USD // 2
# They cost only the tokens of further turns.
FREE_TOOLS = {"tool_search", "programmatic_tool_calling"}
OTHER_MODEL_NANOS = 100 * NANOS_PER_USD
# Fields by which a client chooses other models, or tools that are billed apart.
OTHER_MODELS = {
    *("models", "fallbacks", "context_window_fallback_dict", "route", "provider", "preset", "model_list"),
    *("api_base", "base_url", "custom_llm_provider", "user_config", "compound_custom", "safety_model", "lora"),
    *("routing_config", "model_selection_config", "guardrails", "access_programs"),
}
OTHER_TOOLS = {
    *("plugins", "search_settings", "search_parameters", "enable_search", "search_options", "data_sources"),
    *("dataSources", "mcp_servers", "advisor"),
}
# Fields that let a few bytes stand for a whole context window.
WINDOWS = {
    "chat/completions": {"chat_template", "prompt_embeds", "kv_transfer_params"},
    "completions": {"prompt_embeds", "kv_transfer_params"},
    "responses": {"previous_response_id", "conversation", "chat_template", "container"},
    "embeddings": {"chat_template"},
}
UNATTENDED = {"background", "deferred", "batch"}
# Endpoints whose requests may name a tier of service, tools, and work in the background.
RICH = {"chat/completions", "responses"}
TIER_NAMES = {"fast": "priority", "auto": "priority"}
TIER_FACTORS = {"flex": 0.5, "priority": 2, "scale": 2, "ultrafast": 6}


@dataclass(frozen=True)
class Mood:
    """How much of the worst a request becomes, in percent: parts of the input that are read from the cache or written
    to it, parts of the output that are used, and that are reasoning."""

    used: int = 100
    cached: int = 0
    written: int = 100
    reasoning: int = 0
    # How counts are written: "int", "float" or "digits".
    numbers: str = "int"
    # An odd habit of streams, see faults.py.
    quirk: str = ""
    # Seconds before an answer, and between the events of a stream.
    delay_s: float = 0.0
    pace_s: float = 0.0


@dataclass
class Sheet:
    """The bill in the making."""

    path: str
    body: dict[str, Any]
    kind: Kind
    offer: Offer
    mood: Mood
    contents: Contents
    # Counts that the answer tells apart; all others are part of the plain input or output.
    told: frozenset[str] = frozenset()
    outputs: int = 0
    limit: int = 0
    prompts: int = 1
    beyond_nanos: int = 0
    searches: int = 0
    is_told: bool = True

    def bill(self) -> Bill:
        self._add_fields()
        self._add_tools()
        self._add_runs()
        counts = self._inputs()
        output = self.outputs * self.limit * self.mood.used // 100
        counts[self._output()] = output
        counts["searches"] = self.searches
        tier = self._tier()
        bill = Bill(
            counts={name: count for name, count in counts.items() if count},
            facts={"service_tier": tier} if tier else {},
            beyond_nanos=self.beyond_nanos,
            reasoning=output * self.mood.reasoning // 100,
            is_told=self.is_told,
        )
        return self._at_unknown_tier(bill, tier)

    def _inputs(self) -> dict[str, int]:
        """Disjoint counts of the input, which fits into one context window for each prompt and each turn."""
        contents, prices = self.contents, self.offer.prices
        room = self.prompts * self.offer.context_tokens
        if contents.windows:
            contents.text += contents.windows * room
            room *= contents.windows
        counts: dict[str, int] = {}
        for name, count in (
            ("audio_input", contents.sound_s * SOUND_TOKENS_PER_S),
            ("image_input", contents.pictures * PICTURE_TOKENS),
            ("input", contents.text),
        ):
            own = name if prices.has(name) and name in self.told else "input"
            counts[own] = counts.get(own, 0) + min(count, room)
            room -= min(count, room)
        for name, percent in (("cached_input", self.mood.cached), (self._written(), self.mood.written)):
            if name in self.told:
                part = counts["input"] * percent // 100
                counts["input"] -= part
                counts[name] = part
        return counts

    def _written(self) -> str:
        """Which lifetime the cache writes have. Without a price for writes nothing is written."""
        if "12h" in _values_of(self.body, "ttl") and "cache_write_12h" in self.told:
            return "cache_write_12h" if self.offer.prices.has("cache_write_12h") else ""
        return "cache_write_5m" if self.offer.prices.has("cache_write_5m") else ""

    def _output(self) -> str:
        if "audio" not in (self.body.get("modalities") or []):
            return "output"
        if not self.offer.prices.has("audio_output"):
            self.beyond_nanos += OTHER_TOOL_NANOS
        return "audio_output" if "audio_output" in self.told else "output"

    def _add_fields(self) -> None:
        given = {name for name, value in self.body.items() if value not in (None, "", False, [], {})}
        self.beyond_nanos += len(given & OTHER_MODELS) * OTHER_MODEL_NANOS
        self.contents.windows += len(given & WINDOWS[self.path])
        if self.path in RICH:
            self.beyond_nanos += len(given & OTHER_TOOLS) * TOOL_CALLS * OTHER_TOOL_NANOS
            self.is_told = not given & UNATTENDED
        if self.path == "responses" and isinstance(self.body.get("prompt"), dict):
            self.contents.windows += 1
        if _member(self.body, "prompt_cache_options", "comparison_response_id"):
            self.contents.windows += 1

    def _add_runs(self) -> None:
        """Runs beside the one that answers. Their output is in the usage."""
        if self.body.get("context_management") or "compaction_trigger" in _values_of(self.body.get("input"), "type"):
            self.outputs *= 2
        if _member(self.body, "reasoning", "mode") == "pro":
            self.outputs *= 4
        if self.kind.thinks_beside_limit:
            self.limit += max(0, whole_number(self.body.get("thinking_budget")) or 0)

    def _add_tools(self) -> None:
        if self.path not in RICH:
            return
        contents = self.contents
        contents.add_tools(self.body.get("tools"))
        for name in ("functions", "response_format", "text", "instructions"):
            contents.add_text(self.body.get(name))
        if contents.has_tools or self.body.get("functions"):
            contents.text += self.kind.tool_preamble
        calls = whole_number(self.body.get("max_tool_calls"))
        calls = TOOL_CALLS if calls is None else max(0, calls)
        if isinstance(self.body.get("web_search_options"), dict):
            contents.hosted.append("web_search_options")
            calls = 1
        if contents.hosted:
            contents.windows += calls + 1
            self._add_calls(calls)

    def _add_calls(self, calls: int) -> None:
        for tool in set(self.contents.hosted) - FREE_TOOLS:
            if not tool.startswith("web_search"):
                self.beyond_nanos += calls * OTHER_TOOL_NANOS
            elif "per_search" in self.offer.prices.base:
                self.searches = calls
            else:
                self.beyond_nanos += calls * SEARCH_NANOS

    def _tier(self) -> str:
        asked = self.body.get("service_tier") if self.path in RICH else None
        tier = TIER_NAMES.get(str(asked), str(asked)) if asked else ""
        return "" if tier in ("default", "standard", "standard_only") else tier

    def _at_unknown_tier(self, bill: Bill, tier: str) -> Bill:
        """A tier that the operator has no prices for costs its factor all the same."""
        prices = self.offer.prices
        if not tier or f"service_tier={tier}" in prices.when:
            return bill
        extra = math.ceil(bill.nanos(prices) * (TIER_FACTORS.get(tier, 1) - 1))
        return Bill(bill.counts, bill.facts, bill.beyond_nanos + extra, bill.reasoning, bill.is_told)


def _member(body: dict[str, Any], name: str, inner: str) -> Any:
    value = body.get(name)
    return value.get(inner) if isinstance(value, dict) else None


def _values_of(value: Any, name: str) -> list[str]:
    """All strings that stand anywhere below `value` under this name."""
    if isinstance(value, list):
        return [found for inner in value for found in _values_of(inner, name)]
    if not isinstance(value, dict):
        return []
    own = [value[name]] if isinstance(value.get(name), str) else []
    return own + [found for inner in value.values() for found in _values_of(inner, name)]


# -- Endpoints --------------------------------------------------------------------------------------------------------


def bill_of(path: str, body: dict[str, Any], kind: Kind, offer: Offer, mood: Mood) -> Bill:
    """The bill of a body for the endpoint `path`. Raises Refused for what the provider does not serve."""
    if wrong := kind.refused & set(body):
        raise Refused(422, f"extra_forbidden: {min(wrong)}")
    if path not in kind.serves:
        raise Refused(404, "no such endpoint")
    sheet = Sheet(path, body, kind, offer, mood, Contents(), told=TOLD.get(path, kind.told))
    ENDPOINTS[path](sheet)
    return sheet.bill()


def _chat(sheet: Sheet) -> None:
    messages = sheet.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages")
    sheet.contents.add(messages)
    sheet.contents.text += 3
    sheet.outputs = _choices(sheet, sheet.kind.choices)
    sheet.limit = _limit(sheet, sheet.kind.limits)


def _completions(sheet: Sheet) -> None:
    prompt = sheet.body.get("prompt")
    prompts = prompt if _is_list_of_prompts(prompt) else [prompt]
    for one in prompts:
        sheet.contents.text += len(one) + 1 if isinstance(one, list) else 1
        sheet.contents.add(one if isinstance(one, str) else None)
    sheet.prompts = max(1, len(prompts))
    sheet.contents.add_text(sheet.body.get("suffix"))
    sheet.outputs = sheet.prompts * _choices(sheet, ("n", "best_of", *sheet.kind.choices))
    names = ("n_predict", "max_tokens") if "n_predict" in sheet.kind.limits else ("max_tokens",)
    sheet.limit = _limit(sheet, names)


def _is_list_of_prompts(prompt: Any) -> bool:
    return isinstance(prompt, list) and not all(type(token) is int for token in prompt)


def _responses(sheet: Sheet) -> None:
    if not sheet.body.get("input") and not sheet.body.get("previous_response_id"):
        raise Refused(400, "input")
    sheet.contents.add(sheet.body.get("input"))
    sheet.contents.text += 3
    sheet.outputs = 1
    sheet.limit = _limit(sheet, ("max_output_tokens",))


def _embeddings(sheet: Sheet) -> None:
    given = sheet.body.get("input")
    for one in given if isinstance(given, list) else [given]:
        if type(one) is int:
            sheet.contents.text += 1
        elif isinstance(one, list):
            sheet.contents.text += len(one) + 1
        else:
            sheet.contents.add(one)
    for name in ("messages", "images", "inputs"):
        sheet.contents.add(sheet.body.get(name))
    # Each text has a window of its own.
    sheet.prompts = max(1, len(given)) if isinstance(given, list) else 1


ENDPOINTS = {
    "chat/completions": _chat,
    "completions": _completions,
    "responses": _responses,
    "embeddings": _embeddings,
}
# What the other two endpoints tell apart, whoever serves them.
TOLD = {
    "responses": frozenset({"cached_input", "cache_write_5m", "cache_write_12h", "audio_input", "image_input"}),
    "embeddings": frozenset[str](),
}


def _choices(sheet: Sheet, names: tuple[str, ...]) -> int:
    given = [whole_number(sheet.body.get(name)) or 1 for name in names]
    if sheet.kind.name == "anthropic" and max(given) > 1:
        raise Refused(400, "n must be 1")
    return max(1, min(MAX_CHOICES, max(given, default=1)))


def _limit(sheet: Sheet, names: tuple[str, ...]) -> int:
    """The first of the names that is given, within what the model can. None, or one below 1, is no limit."""
    given = [whole_number(sheet.body.get(name)) for name in names if sheet.body.get(name) is not None]
    most = sheet.offer.max_output_tokens
    return min(given[0], most) if given and given[0] is not None and given[0] > 0 else most


# -- Videos -----------------------------------------------------------------------------------------------------------


def bill_of_video(fields: dict[str, Any], offer: Offer) -> Bill:
    """Seconds × videos, at the price of their size. Several names of a field are all obeyed, the dearest wins."""
    seconds = seconds_of(fields)
    videos = max(_positive(fields, name) or 1 for name in ("n", "num_videos"))
    size = str(fields.get("size") or "720x1280")
    beyond = sum(OTHER_MODEL_NANOS for name in OTHER_MODELS if fields.get(name))
    if str(fields.get("resolution") or "720p") != "720p" or fields.get("generate_audio") in (True, "true"):
        beyond += seconds * videos * NANOS_PER_USD
    if offer.prices.when and f"size={size}" not in offer.prices.when and size != "720x1280":
        # A size that the operator has no price for, where sizes differ.
        beyond += seconds * videos * NANOS_PER_USD
    return Bill({"seconds": seconds * videos}, {"size": size}, beyond)


def seconds_of(fields: dict[str, Any]) -> int:
    return max(_positive(fields, name) or 4 for name in ("seconds", "duration", "n_seconds"))


def _positive(fields: dict[str, Any], name: str) -> int:
    return max(0, whole_number(fields.get(name)) or 0)
