"""Field names: how they are compared, and which of them no request may carry.

Upstreams differ in how they compare names: Go's JSON ignores case, proxies turn camelCase into snake_case. So a name is
judged by its canonical form.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from relay.errors import ApiError

CONTAINERS = (dict, list)
MAX_NAME_LENGTH = 100
MAX_PARAM_LENGTH = 200

# Reasons of a refusal, completed to a sentence by `unsupported`.
CHOICE = "it could choose another model, provider or account"
ELSEWHERE = "it points at content that is not in the request"
UNATTENDED = "it starts work that nobody awaits"
UNBOUNDED = "its cost has no bound"
UNPRICED = "the model has no price for it"
UNSORTED = "this name is not known here, and it may cost money"
SPELLING = "it is another spelling of a known field"


def unsupported(param: str, reason: str) -> ApiError:
    # Names in the path are the client's, and may be as long as the body.
    param = param[:MAX_PARAM_LENGTH]
    return ApiError(400, "unsupported_parameter", f"{param} is not supported: {reason}.", param)


@lru_cache(maxsize=4096)
def _canonical_of(name: str) -> str:
    # NFKC and casefold: Go's JSON takes the Kelvin sign for a k and the long s for an s.
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold())


def canonical(name: str) -> str:
    """`maxOutputTokens`, `MAX-OUTPUT-TOKENS` and `max_output_tokens` are all `maxoutputtokens`."""
    return _canonical_of(name[:MAX_NAME_LENGTH])


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Top-level names by reason. Each is refused in its canonical form, wherever it stands in the body.
REFUSED_NAMES: dict[str, tuple[str, ...]] = {
    CHOICE: words("""
        models fallbacks route provider providers plugins transforms preset usage session_id api_base api_key
        api_version base_url custom_llm_provider context_window_fallback_dict content_policy_fallback_dict
        model_list model_group mock_response mock_timeout num_retries max_retries caching cache guardrails
        guardrail_config tags extra_headers headers extra_body extra_query user_config proxy_server_request
        litellm_metadata litellm_params litellm_session_id litellm_trace_id litellm_call_id litellm_logging_obj
        litellm_settings compound_custom search_settings citation_options safety_model routing_config
        model_selection_config lora lora_request adapter kv_transfer_params ec_transfer_params vllm_xargs nvext
        priority cache_salt request_id id_slot slot_id access_programs deployment deployment_id organization project
        organization_id project_id router engine draft_model speculative secret_fields agent agents agent_reference
    """),
    ELSEWHERE: words("""
        data_sources file_id file_ids file_url file_urls file_uri documents vector_store_ids container container_id
        skill_id connector_id server_url tunnel_id thread assistant_id thread_id cached_content prompt_embeds
        image_data multi_modal_data multimodal_data video_url audio_url document_url input_video uuid callback
        callback_url webhook webhook_url notification_url previous_response_id conversation
    """),
    UNATTENDED: ("deferred", "background_options", "async_mode", "callback_id"),
    UNBOUNDED: words("""
        chat_template search_parameters enable_search search_options search_mode web_search search_context_size
        num_search_results search_domain_filter search_recency_filter return_images return_related_questions
        multi_agent mcp_servers server_tools tool_resources code_interpreter mm_processor_kwargs media_io_kwargs
        vl_high_resolution_images min_pixels max_pixels total_pixels resized_height resized_width response_fields
        audio audios image images image_urls video videos
    """),
}
_REFUSED = {canonical(name): reason for reason, names in REFUSED_NAMES.items() for name in names}

# Names of completion limits. All that the client sent are removed, and the limit is written under the upstream's names.
LIMIT_NAMES = (
    *("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens", "n_predict", "num_predict"),
    *("max_length", "max_gen_len", "max_tokens_to_sample", "max_decode_steps", "max_generated_tokens"),
)
# Names that multiply the outputs of a request.
CHOICE_NAMES = (
    *("n", "best_of", "n_cmpl", "num_generations", "num_return_sequences", "num_beams", "beam_width"),
    *("candidate_count", "num_choices", "num_samples", "num_completions"),
)
# Budgets of thinking, which may lie beside the limit, and what turns thinking on.
BUDGET_NAMES = ("thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "reasoning_budget")
THINKING_NAMES = ("enable_thinking", "thinking", *BUDGET_NAMES)
# A mark in a prompt up to which the provider caches it; its lifetime has a price.
CACHE_MARKS = ("cache_control", "prompt_cache_breakpoint")
# What an unknown object may not contain, beside the refused names: the same field at the top would be judged.
_JUDGED_INSIDE = frozenset(
    map(
        canonical,
        (
            *(name for name in (*LIMIT_NAMES, *CHOICE_NAMES) if name != "n"),
            *("messages", "tools", "functions", "background", "service_tier", "speed", "inference_geo"),
            *("web_search_options", "enable_thinking", *BUDGET_NAMES, "modalities", "response_modalities"),
            *CACHE_MARKS,
        ),
    )
)
# Names of media inside of content. Where a part's type reads them they are counted, and elsewhere they are refused.
_MEDIA_NAMES = frozenset(words("file files media pdf document url urls uri"))
_MEDIA_WORDS = (
    *("image", "audio", "video", "attachment", "photo", "picture", "screenshot"),
    *("inlinedata", "filedata", "inputfile"),
)

_CHOICE_WORDS = (
    *("model", "fallback", "route", "routing", "provider", "plugin"),
    *("tool", "search", "tier", "batch", "background", "litellm", "connector", "skill", "mcp"),
    # Agents, retrieval, browsing and code: the provider would run them at a price of its own.
    *("agent", "assistants", "retriev", "brows", "internet", "grounding", "knowledge", "datasource", "vectorstore"),
    *("crawl", "scrap", "codeexec", "interpreter", "sandbox", "workflow", "orchestrat", "ensemble", "consensus"),
    *("modalit", "speech"),
)
# These are parts of harmless words (`storage`, `keep_alive`), so they count only where they stand alone.
_WHOLE_WORDS = frozenset(
    words("""
    web online live memory memories rag kb citation citations ground grounded fetch dataset datasets collection
    collections corpus corpora bot bots swarm council url urls voice retry retries attempts
    """)
)
_HARMLESS = frozenset({"useragent"})
_OUTPUTS = "sampl|sequence|choice|completion|generation|candidate|output|varia|response|answer|beam|alternative|rollout"
# Unknown names that may multiply the outputs, such as sampleCount and n_variants.
_CHOICES_LIKE = re.compile(
    rf"(n|num|numberof)(return)?({_OUTPUTS})|.*({_OUTPUTS})[a-z]{{0,4}}(count|num|number)$"
    r"|(variants|variations|alternatives)$"
)
# An unknown name of a completion limit could outrank ours, such as max_response_tokens.
_LIMIT_LIKE = re.compile(r"(max|limit)(?!.*(prompt|input)).*(token|length|output|predict|gen)")
_POINTER_WORDS = ("id", "ids", "url", "urls", "uri", "uris", "webhook", "callback", "file", "files")
_BETWEEN_WORDS = re.compile(r"[\W_]|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MEDIA_TYPES = frozenset(
    words("""
    image_url input_image image input_audio audio audio_url input_video video video_url file input_file file_url
    document document_url computer_screenshot
    """)
)


@lru_cache(maxsize=4096)
def _reason_of(name: str) -> str:
    plain = canonical(name)
    if plain in _REFUSED:
        return _REFUSED[plain]
    if plain in _HARMLESS:
        return ""
    if any(word in plain for word in _CHOICE_WORDS) or _LIMIT_LIKE.match(plain) or _CHOICES_LIKE.match(plain):
        return UNSORTED
    # "hybrid" is no pointer, and "session_id" is one.
    spoken = [word.casefold() for word in _BETWEEN_WORDS.split(unicodedata.normalize("NFKC", name))]
    if plain in _WHOLE_WORDS or plain == "assistant" or plain.startswith("web") or not _WHOLE_WORDS.isdisjoint(spoken):
        return UNSORTED
    return ELSEWHERE if spoken[-1] in _POINTER_WORDS else ""


def reason_against(name: str) -> str:
    """Why an unknown field of this name is refused; empty if it may pass."""
    return UNSORTED if len(name) > MAX_NAME_LENGTH else _reason_of(name)


def reason_inside(name: str) -> str:
    """Why this name is refused inside of content, where only names with a known meaning are; empty if it may pass."""
    return _reason_inside(name[:MAX_NAME_LENGTH])


@lru_cache(maxsize=4096)
def _reason_inside(name: str) -> str:
    plain = canonical(name)
    if plain in _REFUSED:
        return _REFUSED[plain]
    if "model" in plain:
        return CHOICE
    if plain in _MEDIA_NAMES:
        return ELSEWHERE
    return UNBOUNDED if plain in _JUDGED_INSIDE or any(word in plain for word in _MEDIA_WORDS) else ""


def _reason_inside_unknown(name: str) -> str:
    return reason_against(name) or reason_inside(name) or (UNBOUNDED if canonical(name) == "n" else "")


def says_nothing(value: Any) -> bool:
    return value is None or value == []


def guard(value: Any, path: str, *, is_unknown: bool = False, free: frozenset[str] = frozenset()) -> None:
    """Refuse a structure that nothing else judges if any name or type in it is refused. It never recurses.

    `is_unknown` applies the stricter rule of unknown top-level fields to the names inside. What is under a name in
    `free` passes as it is.
    """
    judge = _reason_inside_unknown if is_unknown else reason_inside
    stack = [(path, value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, list):
            stack += [(f"{path}[{at}]", inner) for at, inner in enumerate(value) if isinstance(inner, CONTAINERS)]
            continue
        for name, inner in value.items():
            if name in free or says_nothing(inner):
                continue
            if reason := judge(name):
                raise unsupported(f"{path}.{name}", reason)
            if isinstance(inner, CONTAINERS):
                stack.append((f"{path}.{name}", inner))
        kind = value.get("type")
        if isinstance(kind, str) and kind in _MEDIA_TYPES:
            raise unsupported(f"{path}.type", UNBOUNDED)
