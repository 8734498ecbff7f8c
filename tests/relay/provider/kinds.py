"""How providers differ: the names that they read the completion limit from, what they refuse, how they tell usage."""

from __future__ import annotations

from dataclasses import dataclass

MEDIA = frozenset({"audio_input", "image_input"})
CACHED = frozenset({"cached_input"})
WRITTEN = frozenset({"cached_input", "cache_write_5m"})
EVERYTHING = WRITTEN | MEDIA | {"cache_write_12h", "audio_output"}
NOTHING: frozenset[str] = frozenset()
CHAT = frozenset({"chat/completions"})
TEXT = CHAT | {"completions", "embeddings"}
BOTH = ("max_completion_tokens", "max_tokens")
OLD = ("max_tokens",)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One provider.

    The first name of `limits` that the body has decides; all others are ignored. `usage` names the function of
    telling.py that writes the usage. `stream_usage` says where a stream tells it: in a chunk of its own if it was asked
    for ("asked"), or always; in the finishing chunk ("finish"), below `x_groq` there, or in its choice.
    """

    name: str
    limits: tuple[str, ...] = BOTH
    choices: tuple[str, ...] = ("n",)
    usage: str = "openai"
    # The counts that chat's usage tells apart.
    told: frozenset[str] = CACHED | MEDIA
    stream_usage: str = "asked"
    refused: frozenset[str] = frozenset()
    # Go's encoding/json finds a field by its name in any case; the last of several wins.
    ignores_case: bool = False
    # Objects whose members are merged into the body.
    merged: tuple[str, ...] = ()
    # Thinking has a budget of its own, beside the completion limit.
    thinks_beside_limit: bool = False
    # Tokens of the hidden system prompt that explains the use of tools.
    tool_preamble: int = 0
    serves: frozenset[str] = TEXT | {"responses"}


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="openai", told=EVERYTHING),
        Kind(name="azure", told=EVERYTHING),
        Kind(name="groq", serves=CHAT | {"responses"}, told=CACHED, stream_usage="x_groq"),
        Kind(name="moonshot", serves=CHAT, told=CACHED, limits=OLD, usage="moonshot", stream_usage="choice"),
        Kind(name="xai", usage="xai", stream_usage="finish"),
        Kind(name="gemini", serves=CHAT | {"embeddings"}, told=NOTHING, usage="gemini"),
        Kind(name="deepseek", serves=CHAT, told=CACHED, limits=OLD, usage="deepseek"),
        Kind(
            name="mistral",
            serves=CHAT | {"embeddings"},
            told=CACHED,
            limits=OLD,
            usage="mistral",
            stream_usage="finish",
            refused=frozenset({"max_completion_tokens", "stream_options"}),
        ),
        Kind(name="openrouter", told=WRITTEN | MEDIA, usage="openrouter", stream_usage="always"),
        Kind(name="vllm", choices=("n", "best_of"), usage="vllm"),
        Kind(name="litellm", told=WRITTEN, usage="anthropic_names", merged=("extra_body",)),
        Kind(name="anthropic", serves=CHAT, told=NOTHING, usage="plain", tool_preamble=346),
        Kind(name="ollama", told=NOTHING, limits=OLD, choices=(), usage="plain", ignores_case=True),
        # llama.cpp: the other two names are aliases of n_predict, which wins.
        Kind(
            name="llamacpp",
            limits=("n_predict", "max_completion_tokens", "max_tokens"),
            choices=("n_cmpl", "n"),
            usage="vllm",
        ),
        Kind(
            name="dashscope",
            told=NOTHING,
            limits=OLD,
            usage="plain",
            thinks_beside_limit=True,
            serves=CHAT | {"embeddings"},
        ),
    )
}
