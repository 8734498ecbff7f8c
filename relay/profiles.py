"""What differs between providers, as data. An upstream names its kind, and may override each value.

docs/upstreams.md explains the kinds to operators; a test compares its table with KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

AUTHS = ("bearer", "x-api-key", "api-key", "x-goog-api-key", "none")
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "both", "none")
UNKNOWN_FIELDS = ("pass", "refuse")
MAX_RETRIES = 3

# Endpoints by their path below /v1.
CHAT, COMPLETIONS, RESPONSES = "/chat/completions", "/completions", "/responses"
COMPACT, INPUT_TOKENS = "/responses/compact", "/responses/input_tokens"
MESSAGES, COUNT_TOKENS = "/messages", "/messages/count_tokens"
EMBEDDINGS, MODERATIONS, RERANK = "/embeddings", "/moderations", "/rerank"
IMAGES, IMAGE_EDITS = "/images/generations", "/images/edits"
SPEECH, TRANSCRIPTIONS, TRANSLATIONS = "/audio/speech", "/audio/transcriptions", "/audio/translations"
VIDEOS, MODELS = "/videos", "/models"
_TEXT = (CHAT, COMPLETIONS, EMBEDDINGS, MODELS)
_IMAGES = (IMAGES, IMAGE_EDITS)
_AUDIO = (SPEECH, TRANSCRIPTIONS, TRANSLATIONS)
_RESPONSES = (RESPONSES, COMPACT, INPUT_TOKENS)
_MESSAGES = (MESSAGES, COUNT_TOKENS)
OPENAI_ENDPOINTS = frozenset({*_TEXT, *_RESPONSES, *_IMAGES, *_AUDIO, MODERATIONS, VIDEOS})
ENDPOINTS = OPENAI_ENDPOINTS | {*_MESSAGES, RERANK}

# Harmless fields of OpenAI's dialect that Mistral refuses with 422 extra_forbidden.
_UNKNOWN_TO_MISTRAL = frozenset(
    {
        *("user", "safety_identifier", "store", "logit_bias", "logprobs", "top_logprobs", "verbosity"),
        *("prompt_cache_retention", "modalities"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one upstream is addressed and what it understands.

    `auth` is the header of the credential: one of AUTHS. `path` is appended to the base URL, with {path} (such as
    /chat/completions) and {model} (the upstream's name of the model); `paths` has the templates of endpoints that
    differ. `limit_field` is the name of chat's completion limit: one of LIMIT_FIELDS. `unknown_fields` is "pass" or
    "refuse". Fields named in `drops` are left out of the body, those in `renames` get another name.
    """

    kind: str = "openai"
    auth: str = "bearer"
    path: str = "{path}"
    paths: tuple[tuple[str, str], ...] = ()
    # Sent with every request; an upstream's own headers of the same name replace them.
    headers: tuple[tuple[str, str], ...] = ()
    limit_field: str = "max_completion_tokens"
    # Whether stream_options.include_usage may be sent.
    sends_stream_options: bool = True
    unknown_fields: str = "pass"
    drops: frozenset[str] = frozenset()
    renames: tuple[tuple[str, str], ...] = ()
    # Whether it takes OpenAI's service_tier. Left out, the account's setting decides, which may be the dearest.
    knows_tiers: bool = False
    # Whether responses may be kept upstream (`store`), so that clients may refer to them by id.
    keeps_state: bool = False
    # Whether cost that the provider tells is charged instead of prices × usage.
    settles_by_told_cost: bool = False
    # How often the same upstream is asked again after a failure that passes by itself, before the next one is.
    retries: int = 0
    speaks: frozenset[str] = OPENAI_ENDPOINTS

    def path_of(self, endpoint: str) -> str:
        return dict(self.paths).get(endpoint, self.path)


def _row(kind: str, *speaks: str, **values: Any) -> Profile:
    return Profile(kind=kind, speaks=frozenset(speaks) or OPENAI_ENDPOINTS, **values)


OPENAI = Profile(knows_tiers=True)
_CLASSIC_AZURE_PATHS = tuple((path, "/openai{path}") for path in _RESPONSES) + ((VIDEOS, "/openai/v1{path}"),)
_OLD_LIMIT: dict[str, Any] = {"limit_field": "max_tokens"}
# The usage is told at the end of every stream without being asked for.
_TELLS_USAGE: dict[str, Any] = {**_OLD_LIMIT, "sends_stream_options": False}

KINDS: Mapping[str, Profile] = {
    row.kind: row
    for row in (
        OPENAI,
        # A base URL that ends in /openai/v1 is the newer API, which needs no deployment in the path.
        _row(
            "azure",
            auth="api-key",
            path="/openai/deployments/{model}{path}",
            paths=_CLASSIC_AZURE_PATHS,
            knows_tiers=True,
        ),
        _row("azure-v1", auth="api-key", path="/openai/v1{path}", knows_tiers=True),
        _row(
            *("anthropic", *_MESSAGES, CHAT, MODELS),
            **_OLD_LIMIT,
            auth="x-api-key",
            headers=(("anthropic-version", "2023-06-01"),),
        ),
        _row("gemini", CHAT, EMBEDDINGS, IMAGES, MODELS, **_OLD_LIMIT),
        _row(
            *("mistral", CHAT, EMBEDDINGS, MODERATIONS, TRANSCRIPTIONS, MODELS),
            **_TELLS_USAGE,
            unknown_fields="refuse",
            drops=_UNKNOWN_TO_MISTRAL,
            renames=(("seed", "random_seed"),),
        ),
        _row("openrouter", *_TEXT, RESPONSES, *_MESSAGES, **_TELLS_USAGE),
        _row("deepseek", CHAT, MODELS, **_OLD_LIMIT),
        _row("xai", *_TEXT, RESPONSES, IMAGES),
        _row("groq", CHAT, RESPONSES, *_AUDIO, MODELS),
        _row("moonshot", CHAT, MODELS, **_OLD_LIMIT),
        _row("dashscope", CHAT, EMBEDDINGS, MODELS, **_OLD_LIMIT),
        _row("zhipu", CHAT, EMBEDDINGS, IMAGES, MODELS, **_TELLS_USAGE),
        _row("together", *_TEXT, IMAGES, *_AUDIO, RERANK, **_OLD_LIMIT),
        _row("fireworks", *_TEXT, RESPONSES, RERANK, **_TELLS_USAGE),
        _row("cohere", CHAT, EMBEDDINGS, MODELS, **_OLD_LIMIT),
        _row("voyage", EMBEDDINGS, RERANK, limit_field="none"),
        _row("jina", EMBEDDINGS, RERANK, limit_field="none"),
        _row("perplexity", CHAT, RESPONSES, **_TELLS_USAGE),
        _row("ollama", *_TEXT, RESPONSES, MESSAGES, **_OLD_LIMIT),
        _row("vllm", *_TEXT, RESPONSES, *_MESSAGES, *_AUDIO, RERANK, limit_field="both"),
        _row("llamacpp", *_TEXT, RESPONSES, *_MESSAGES, RERANK, **_OLD_LIMIT),
        _row("litellm", *sorted(ENDPOINTS), **_OLD_LIMIT),
        _row("custom", *sorted(ENDPOINTS), **_OLD_LIMIT),
    )
}


# The kind of a provider that is known by its host or by the end of it.
KIND_OF_HOST: Mapping[str, str] = {
    "api.openai.com": "openai",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure-v1",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "api.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.groq.com": "groq",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "dashscope.aliyuncs.com": "dashscope",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "open.bigmodel.cn": "zhipu",
    "api.z.ai": "zhipu",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.voyageai.com": "voyage",
    "api.jina.ai": "jina",
    "api.perplexity.ai": "perplexity",
}


def kind_of_address(base_url: str) -> str:
    """The kind of a provider known by its address, "openai" for every other."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    kinds = (kind for end, kind in KIND_OF_HOST.items() if host == end or (end[0] == "." and host.endswith(end)))
    kind = next(kinds, "openai")
    return "azure-v1" if kind == "azure" and parts.path.rstrip("/").endswith("/openai/v1") else kind


class ProfileError(ValueError):
    """A kind or a setting is not valid. The message names it and says what is allowed."""


def profile_of(kind: str, overrides: Mapping[str, Any]) -> Profile:
    """The profile of a kind with some of its values overridden. Raises ProfileError, which names the key."""
    if kind not in KINDS:
        raise ProfileError(f"kind: there is no “{kind}”; one of {', '.join(KINDS)}")
    values: dict[str, Any] = {name: _read(name, value) for name, value in overrides.items()}
    if "path" in values:
        values["paths"] = ()
    return replace(KINDS[kind], **values)


def _read(name: str, value: Any) -> Any:
    reader = READERS.get(name)
    if reader is None:
        raise ProfileError(f"{name}: there is no such setting; one of {', '.join(READERS)}")
    try:
        return reader(value)
    except ValueError as error:
        raise ProfileError(f"{name}: {error}") from None


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return read


def _yes_or_no(value: Any) -> bool:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise ValueError("one of true, false")
    return word == "true"


def _retries(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_RETRIES):
        raise ValueError(f"a whole number from 0 to {MAX_RETRIES}")
    return int(text)


def _path(value: Any) -> str:
    text = str(value)
    plain = text.replace("{path}", "").replace("{model}", "")
    if "{path}" not in text or any(not "!" <= character <= "~" or character in "{}?#\\" for character in plain):
        raise ValueError("a path with {path} and, where needed, {model}, such as /openai/deployments/{model}{path}")
    return text


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("names, separated by commas")
    return [part.strip() for part in parts if part.strip()]


def _endpoints(value: Any) -> frozenset[str]:
    named = frozenset("/" + name.removeprefix("/v1").strip("/") for name in _names(value))
    if not named or named - ENDPOINTS:
        raise ValueError(f"some of {', '.join(sorted(ENDPOINTS))}, separated by commas")
    return named


def _field_names(value: Any) -> frozenset[str]:
    return frozenset(_names(value))


READERS: Mapping[str, Callable[[Any], Any]] = {
    "auth": _one_of(AUTHS),
    "path": _path,
    "limit_field": _one_of(LIMIT_FIELDS),
    "sends_stream_options": _yes_or_no,
    "unknown_fields": _one_of(UNKNOWN_FIELDS),
    "drops": _field_names,
    "knows_tiers": _yes_or_no,
    "keeps_state": _yes_or_no,
    "settles_by_told_cost": _yes_or_no,
    "retries": _retries,
    "speaks": _endpoints,
}
assert READERS.keys() <= {field.name for field in fields(Profile)}
