"""What differs between providers. An upstream names its kind, and may override each value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one upstream is addressed and what it understands.

    `auth` is the header of the credential: "bearer", "x-api-key", "api-key", "x-goog-api-key" or "none". `path` is
    appended to the base URL, with {path} (such as /chat/completions) and {model} (the upstream's name of the model).
    `limit_field` is the name of chat's completion limit: "max_completion_tokens", "max_tokens", "both" or "none".
    `unknown_fields` is "pass" or "refuse".
    """

    kind: str = "openai"
    auth: str = "bearer"
    path: str = "{path}"
    limit_field: str = "max_completion_tokens"
    # Whether stream_options.include_usage may be sent.
    sends_stream_options: bool = True
    unknown_fields: str = "pass"
    # Whether responses may be kept upstream (`store`), so that clients may refer to them by id.
    keeps_state: bool = False
    # Whether cost that the provider tells is charged instead of prices × usage.
    settles_by_told_cost: bool = False
    speaks: frozenset[str] = frozenset(
        {"/chat/completions", "/completions", "/responses", "/embeddings", "/videos", "/models"}
    )


OPENAI = Profile()
