"""POST /v1/completions: each prompt has `max(n, best_of, …)` outputs."""

from __future__ import annotations

from relay.dialects.dialect import Dialect
from relay.dialects.fields import FORMAT, GENERATING, PASS, Row, Table, Verdict
from relay.dialects.prompts import read_prompts

ROWS: Table = {
    **GENERATING,
    "prompt": Row(Verdict.BOUND, read_prompts),
    "echo": PASS,
    "suffix": PASS,
    "truncate_prompt_tokens": PASS,
    "response_format": FORMAT,
}

DIALECT = Dialect(
    path="/completions",
    rows=ROWS,
    limit_names=lambda profile: ("max_tokens",),
    asks_usage=True,
    always_sends_limit=True,
)
