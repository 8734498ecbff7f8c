"""POST /v1/embeddings: input only."""

from __future__ import annotations

from relay.dialects.dialect import Dialect
from relay.dialects.fields import PASS, SHARED, Row, Table, Verdict
from relay.dialects.prompts import read_prompts

ROWS: Table = {
    **SHARED,
    "input": Row(Verdict.BOUND, read_prompts),
    **dict.fromkeys(("dimensions", "encoding_format", "input_type", "truncate", "task", "late_chunking"), PASS),
    **dict.fromkeys(("output_dtype", "output_dimension", "truncation", "normalized", "embedding_type"), PASS),
    **dict.fromkeys(("embedding_types", "truncate_prompt_tokens", "add_special_tokens"), PASS),
}

DIALECT = Dialect(path="/embeddings", rows=ROWS)
