"""What an upstream's answer says: usage, model, tier, its own cost, or an error inside a 200.

One reader serves all dialects, because providers mix them: see `Reader` for the order in which it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.pricing import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The facts of a whole answer, or of a stream so far.

    `usage` is None if none was told. `facts` choose the price row (service_tier, speed, inference_geo), as answered.
    `told_nanos` is the provider's own figure of its cost. `error` is the error inside a 200, as (status, code, message).
    """

    usage: Usage | None = None
    model: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    told_nanos: int | None = None
    error: tuple[int, str, str] | None = None
    has_output: bool = False
    # The id of a response that the upstream keeps; empty if it keeps none.
    stored_id: str = ""
