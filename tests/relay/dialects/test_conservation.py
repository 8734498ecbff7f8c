"""A body is refused by name, or what goes upstream has no refused name and exactly our limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from relay.dialects import DIALECTS
from relay.dialects.ask import Ask
from relay.dialects.dialect import Dialect
from relay.dialects.fields import OPEN, Verdict
from relay.dialects.names import LIMIT_NAMES, REFUSED_NAMES, canonical
from relay.errors import ApiError
from relay.profiles import Profile

# OpenRouter's pictures of an assistant's message are judged as parts.
REFUSED = {canonical(name) for names in REFUSED_NAMES.values() for name in names if name != "images"}
LIMITS = {canonical(name) for name in LIMIT_NAMES}
# Free-form data inside of content and tools, where names are the client's own words.
FREE = {
    *("parameters", "function", "custom", "tool_calls", "function_call", "annotations", "logprobs", "signature"),
    *("reasoning_details", "thinking_blocks", "metadata", "functions", "action", "actions", "arguments", "caller"),
    *("operation", "results", "outputs", "error", "queries", "input", "result", "code", "status", "output", "text"),
    *("approval_request_id", "acknowledged_safety_checks", "svg_usage", "format", "output_schema", "reasoning"),
    *("input_schema", "input_examples", "container_id", "filters", "user_location", "voice", "tool_choice"),
    *("json", "schema", "properties", "citations"),
}
WORDS = ["file_id", "fileUrl", "models", "num_predict", "MAX_TOKENS", "max_completion_tokens", "background", "x_model"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 130),
    st.floats(allow_nan=False),
    st.sampled_from(["", "hi", "auto", "priority", "data:image/png;base64,aGk=", "https://example.com/a", "\ud83d"]),
)
KINDS = ["text", "image_url", "input_audio", "file", "input_file", "message", "reasoning", "item_reference", "function"]
NAMES = st.sampled_from(
    [*WORDS, "type", "role", "content", "image_url", "url", "data", "file", "file_data", "tools", "id"]
)


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    typed = st.fixed_dictionaries({"type": st.sampled_from([*KINDS, "web_search", "video_url", "zeta"])})
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(NAMES, st.text(max_size=3)), inner, max_size=3),
        st.builds(lambda kind, more: kind | more, typed, st.dictionaries(NAMES, inner, max_size=3)),
    )


VALUES = st.recursive(SCALARS, grow, max_leaves=12)


# Bodies that would pass, but for one part or key that is drawn.
PARTS = st.builds(lambda part: [{"type": "text", "text": "hi"}, part], VALUES)
CONVERSATIONS = st.builds(
    lambda name, content, more: {name: [{"role": "user", "content": content} | more]},
    st.sampled_from(["messages", "input"]),
    st.one_of(st.just("hi"), PARTS),
    st.one_of(st.just({}), st.dictionaries(NAMES, VALUES, max_size=1)),
)


def bodies(dialect: Dialect) -> st.SearchStrategy[dict[str, Any]]:
    accepted = st.sampled_from([name for name, row in dialect.rows.items() if row.verdict is not Verdict.REFUSE])
    names = st.one_of(accepted, accepted, accepted, st.sampled_from([*WORDS, *dialect.rows]), st.text(max_size=4))
    fields = st.dictionaries(names, VALUES, max_size=4)
    return st.builds(lambda body, more: body | more | {"model": "m"}, fields, st.one_of(st.just({}), CONVERSATIONS))


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from names_in(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if inner is not None and inner != []:
                yield canonical(name)
            if name not in FREE:
                yield from names_in(inner)


@pytest.mark.parametrize("path", sorted(DIALECTS))
@given(data=st.data())
def test_a_body_is_refused_or_written_without_a_refused_name_and_with_our_limit(path, data) -> None:
    dialect = DIALECTS[path]
    body = data.draw(bodies(dialect))
    profile = Profile(limit_field=data.draw(st.sampled_from(["max_completion_tokens", "max_tokens", "both", "none"])))
    ask = read_or_refuse(dialect, body)
    if ask is None:
        return

    written = json.loads(dialect.body_for(ask, profile, model="theirs", limit=77, user="u", cache_scope="s"))

    verdicts = [dialect.rows[name].verdict for name in written if name in dialect.rows]
    assert Verdict.REFUSE not in verdicts
    judged = [value for name, value in written.items() if dialect.rows.get(name) is not OPEN and name not in FREE]
    assert set(names_in(judged)) & REFUSED == set()
    assert written["model"] == "theirs"
    if dialect.limit_names is not None:
        limits = {name: value for name, value in written.items() if canonical(name) in LIMITS}
        assert limits == dict.fromkeys(dialect.limit_names(profile), 77)
        choices = [1, *(body[name] for name in ("n", "best_of", "n_cmpl") if type(body.get(name)) is int)]
        assert ask.extent.outputs >= ask.extent.prompts * max(choices)


def read_or_refuse(dialect: Dialect, body: dict[str, Any]) -> Ask | None:
    try:
        return dialect.read(json.loads(json.dumps(body)), body_bytes=1000)
    except ApiError as error:
        # Anything else than a refusal of ours fails the test.
        event(f"refused: {error.code}")
        if error.status != 400:
            raise
        return None


def test_every_row_that_is_refused_is_refused() -> None:
    for path, dialect in DIALECTS.items():
        for name, row in dialect.rows.items():
            if row.verdict is Verdict.REFUSE:
                with pytest.raises(ApiError) as caught:
                    dialect.read({"model": "m", name: "x"}, body_bytes=100)
                assert (path, caught.value.param) == (path, name)
