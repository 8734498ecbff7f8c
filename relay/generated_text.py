"""The size of generated text in answers and events of any dialect: what output is estimated by if no usage is told."""

from __future__ import annotations

from typing import Any

from relay import quick_json

TEXT_FIELDS = frozenset(
    {
        *("content", "text", "delta", "arguments", "reasoning_content", "reasoning", "thinking", "partial_json"),
        *("refusal", "summary", "transcript", "input", "code", "name", "query", "tool_plan", "response", "output_text"),
    }
)
_DELTA_TEXTS = ("content", "text", "reasoning_content")
# Arguments of a tool, told as an object instead of its text.
_OBJECT_FIELDS = frozenset({"input", "arguments", "args"})
# Not generated, or the same text once more. Obfuscation and signatures are no text fields.
_SKIPPED_FIELDS = frozenset(
    {
        *("usage", "error", "logprobs", "metadata", "tools", "instructions", "prompt", "annotations", "citations"),
        *("search_results", "content_filter_results", "prompt_filter_results", "x_groq", "tool_usage", "moderation"),
        *(
            "data",
            "results",
            "embeddings",
            "documents",
            "sources",
            "groundingMetadata",
            "incomplete_details",
            "text_config",
        ),
    }
)
# The same reasoning under several names, so that the longest counts.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details")


def text_bytes(value: object) -> int:
    """UTF-8 bytes of all text fields inside. Walks without recursion, since the depth is the upstream's choice."""
    size, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            size += _reasoning_bytes(item)
            for name, inner in item.items():
                if type(inner) is str:
                    size += encoded_length(inner) if name in TEXT_FIELDS and name not in _REASONING_FIELDS else 0
                elif name in _OBJECT_FIELDS and type(inner) is dict:
                    size += len(quick_json.write(inner))
                elif name not in _SKIPPED_FIELDS and name not in _REASONING_FIELDS:
                    pending.append(_strings(inner) if name in TEXT_FIELDS else inner)
    return size


def encoded_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def delta_bytes(delta: dict[str, Any]) -> int:
    """`text_bytes` of the delta of a chat chunk or of Anthropic's, by a shorter way where it has one text only."""
    for name in _DELTA_TEXTS:
        text = delta.get(name)
        if type(text) is str and len(delta) - ("role" in delta) - ("type" in delta) == 1:
            return len(text) if text.isascii() else encoded_length(text)
    return text_bytes(delta)


def _reasoning_bytes(item: dict[str, Any]) -> int:
    told = [item[name] for name in _REASONING_FIELDS if item.get(name)]
    if not told:
        return 0
    return max(encoded_length(value) if isinstance(value, str) else text_bytes(value) for value in told)


def _strings(value: object) -> object:
    # A list of plain strings under a text field, such as completions with several texts.
    if isinstance(value, list):
        return [{"text": item} if isinstance(item, str) else item for item in value]
    return value
