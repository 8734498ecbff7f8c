"""What a body holds: the extent, needs, pointers and limits of each shape, and the path of each that is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from relay import quick_json
from relay.dialects import DIALECTS, check, check_unknown, extent_of
from relay.dialects.ask import Ask, Media, Need, Pointer
from relay.dialects.items import MAX_REFERENCES
from relay.errors import ApiError
from relay.pricing import Extent, PriceList, PriceRow, Rate, bound_nanos
from relay.profiles import Profile

CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS = "/chat/completions", "/completions", "/responses", "/embeddings"
HI = [{"role": "user", "content": "hi"}]
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3000)).decode()
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"models": {}, "file_id": {}}}}}


def read(path: str, **body: Any) -> Ask:
    """Read a body of 1,000 bytes."""
    return DIALECTS[path].read({"model": "m"} | body, body_bytes=1000)


def chat(*parts: Any, **body: Any) -> Ask:
    return read(CHAT, messages=[{"role": "user", "content": list(parts)}], **body)


def refused(path: str, **body: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        read(path, **body)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
    return caught.value.param


def wrong(path: str, **body: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        read(path, **body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value.param


# -- Prompts and choices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "prompts", "outputs"),
    [
        ({}, 1, 1),
        ({"prompt": None}, 1, 1),
        ({"prompt": "a", "n": 3}, 1, 3),
        ({"prompt": ["a"] * 100, "best_of": 20}, 100, 2000),
        ({"prompt": ["a"] * 100, "best_of": 20, "n": 3}, 100, 2000),
        ({"prompt": ["a", "b"], "n": 3}, 2, 6),
        ({"prompt": list(range(500)), "n": 2}, 1, 2),
        ({"prompt": [[1, 2], [3], "c"], "best_of": 4}, 3, 12),
        ({"prompt": []}, 1, 1),
        ({"prompt": ["a", "b"], "n_cmpl": 5, "n": 2}, 2, 10),
        ({"prompt": "a", "num_generations": 7}, 1, 7),
        ({"prompt": "a", "use_beam_search": True, "best_of": 8}, 1, 8),
        ({"prompt": "a", "n": None}, 1, 1),
    ],
)
def test_completions_hold_each_prompt_times_its_outputs(body, prompts, outputs) -> None:
    assert read(COMPLETIONS, **body).extent == Extent(input_tokens=1000, prompts=prompts, outputs=outputs)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([{"prompt_token_ids": [1]}], "prompt[0]"),
        (["a", 1], "prompt[1]"),
        ([True], "prompt[0]"),
        ([[1], ["a"]], "prompt[1]"),
        ({"id": "pmpt_1"}, "prompt"),
        (7, "prompt"),
    ],
)
def test_prompts_of_another_shape_are_refused(prompt, param) -> None:
    assert refused(COMPLETIONS, prompt=prompt) == param


def test_2048_prompts_are_the_most() -> None:
    assert read(COMPLETIONS, prompt=["a"] * 2048).extent.prompts == 2048
    assert wrong(COMPLETIONS, prompt=["a"] * 2049) == "prompt"


@pytest.mark.parametrize("name", ["n", "best_of", "n_cmpl", "num_generations", "num_beams", "candidate_count"])
@pytest.mark.parametrize("value", [0, -1, 129, 1.5, "2", True, [1]])
def test_a_number_of_choices_is_a_whole_number_up_to_128(name, value) -> None:
    assert wrong(CHAT, messages=HI, **{name: value}) == name


def test_embeddings_have_prompts_and_no_output() -> None:
    assert read(EMBEDDINGS, input=["a", "b"]).extent == Extent(input_tokens=1000, prompts=2, outputs=2)
    assert not DIALECTS[EMBEDDINGS].has_output


@pytest.mark.parametrize("value", [[{"image": "https://x/y.png"}], [{"text": "a"}], {"content": []}])
def test_embeddings_of_pictures_are_refused(value) -> None:
    assert refused(EMBEDDINGS, input=value) in ("input", "input[0]")


# -- Limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, None),
        ({"max_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7),
        ({"n_predict": 100, "num_predict": 50, "max_length": 60, "max_new_tokens": 70}, 50),
        ({"maxOutputTokens": 5, "max_tokens": 9}, 5),
        ({"MAX_TOKENS": 5}, 5),
        ({"max_to\u212aens": 5}, 5),
        ({"n_predict": -1}, None),
        ({"max_tokens": None}, None),
    ],
)
def test_the_least_limit_that_the_client_named_holds_and_none_of_its_names_is_left(body, limit) -> None:
    ask = read(CHAT, messages=HI, **body)

    assert (ask.limit, ask.fields) == (limit, {"model": "m", "messages": HI})


@pytest.mark.parametrize("value", [0, -2, 1.5, "9", True, 10**9 + 1])
def test_a_limit_that_is_none_is_named(value) -> None:
    assert wrong(CHAT, messages=HI, max_tokens=value) == "max_tokens"


# -- Content ----------------------------------------------------------------------------------------------------------


def audio(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def wave(seconds: int, *, rate: int = 24_000, bits: int = 16, channels: int = 1, told: int | None = None) -> bytes:
    a_second = rate * bits // 8 * channels
    numbers = [(1, 2), (channels, 2), (rate, 4), (a_second if told is None else told, 4), (2, 2), (bits, 2)]
    form = b"".join(number.to_bytes(size, "little") for number, size in numbers)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data\0\0\0\0" + bytes(min(a_second * seconds, 10_000_000))


def test_an_inline_picture_is_a_picture_and_no_text() -> None:
    ask = DIALECTS[CHAT].read(
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]},
        body_bytes=len(PNG) + 100,
    )

    assert (ask.media, ask.extent.input_tokens) == (Media(images=1), 100)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + base64.b64encode(b"a book of text" * 50).decode(),
        "data:image/png," + "text" * 100,
        "data:text/plain;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(300)).decode(),
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg>" + b"text" * 100).decode(),
        "data:image/png;charset=utf-8;base64," + "A" * 500,
        "just text" * 50,
        "https://example.com/a.png",
    ],
)
def test_what_is_no_picture_costs_its_bytes_and_a_picture(url) -> None:
    ask = chat({"type": "image_url", "image_url": {"url": url, "detail": "original"}})

    assert (ask.media, ask.extent.input_tokens) == (Media(images=1), 1000)


@pytest.mark.parametrize(
    "url",
    [
        "data:application/pdf;base64,JVBERi0xLjQ=",
        "data:video/mp4;base64,AAAAIGZ0eXBpc29t",
        "data:image/png;base64," + base64.b64encode(b"%PDF-1.7 text").decode(),
        "data:image/png;base64," + base64.b64encode(b"\x1aE\xdf\xa3 a film").decode(),
    ],
)
def test_a_document_or_film_in_the_place_of_a_picture_holds_the_window(url) -> None:
    assert chat({"type": "image_url", "image_url": {"url": url}}).extent.context_reads == 1


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gs://b/a.png", "s3://b/a.png", " FILE:/x"),
        *("https://x/a.pdf", "https://x/A.MP4?b=c", "http://x/a.mp3#t"),
    ],
)
def test_a_link_to_something_else_than_a_picture_is_refused(url) -> None:
    with pytest.raises(ApiError) as caught:
        chat({"type": "image_url", "image_url": url})
    assert caught.value.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize(
    ("data", "media", "reads", "tokens"),
    [
        # Ten seconds take 480,000 bytes: a minute is begun.
        (wave(10), Media(audio_minutes=1), 0, True),
        (wave(61, rate=8000, bits=8), Media(audio_minutes=2), 0, True),
        # The header of a long recording at an absurdly low rate.
        (wave(600, rate=100, bits=8), Media(audio_minutes=11), 0, True),
        # 60,000 bytes of MP3 may be a minute, at 8 kbit/s.
        (b"\xff\xfb\x90\x00" + bytes(60_000), Media(audio_minutes=2), 0, True),
        (b"ID3\x04\0\0\0\0\x02\x01" + bytes(257) + b"\xff\xe3\x18\xc4" + bytes(100), Media(audio_minutes=1), 0, True),
        # Opus, FLAC and lies: silence has no bytes, so the window is held.
        (b"OggS" + bytes(60_000), Media(audio_minutes=2), 1, False),
        (b"fLaC" + bytes(100), Media(audio_minutes=1), 1, False),
        (b"ID3\x04\0\0\0\0\x02\x01" + bytes(257) + b"fLaC" + bytes(100), Media(audio_minutes=1), 1, False),
        (wave(1, rate=10**9)[:1000], Media(audio_minutes=1), 1, False),
        (wave(1, told=0)[:1000], Media(audio_minutes=1), 1, False),
        (b"", Media(audio_minutes=1), 1, False),
    ],
    ids=["wave", "slow wave", "slowest wave", "mp3", "tagged mp3", "opus", "flac", "tagged flac", *("lie", "none", "")],
)
def test_sound_counts_started_minutes_where_bytes_bound_them_and_else_the_window(data, media, reads, tokens) -> None:
    part = audio(data)
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}

    ask = DIALECTS[CHAT].read(body, body_bytes=len(json.dumps(body)))

    assert (ask.media, ask.extent.context_reads) == (media, reads)
    assert (ask.extent.input_tokens < 200) == tokens or len(data) < 200


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "input_file", "file_data": "JVBERi0="},
    ],
)
def test_a_document_holds_the_context_window(part) -> None:
    assert chat(part).extent.context_reads == 1


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"fileId": "file-1"}}, "file.fileId"),
        ({"type": "file", "file": {"file_data": "https://x/a.pdf"}}, "file.file_data"),
        ({"type": "input_file", "file_url": "https://x/a.pdf"}, "file_url"),
        ({"type": "input_file", "file_id": "file-1"}, "file_id"),
        ({"type": "input_image", "file_id": "file-1"}, "file_id"),
        ({"type": "image_url", "image_url": {"url": PNG, "file_id": "x"}}, "image_url.file_id"),
        ({"type": "image_url", "image_url": None, "uuid": "cached"}, "uuid"),
        ({"type": "image_url", "image_url": PNG, "max_pixels": 10**9}, "max_pixels"),
        ({"type": "input_audio", "input_audio": {"data": "https://x/a.wav"}}, "input_audio.data"),
        ({"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}, "type"),
        ({"type": "audio_url", "audio_url": {"url": "https://x/a.mp3"}}, "type"),
        ({"type": "input_video", "video": "x"}, "type"),
        ({"type": "image", "image": PNG}, "type"),
        ({"type": "audio", "audio": "x"}, "type"),
        ({"type": "document_url", "document_url": "https://x"}, "type"),
        ({"type": "hologram"}, "type"),
        ({"type": None, "text": "hi"}, "type"),
        ({"type": ["text"], "text": "hi"}, "type"),
        ({"image_url": {"url": PNG}}, "type"),
        ({"type": "text", "text": "hi", "video_url": {"url": "x"}}, "video_url"),
        ({"type": "text", "text": {"type": "image_url"}}, "text.type"),
        ({"type": "text", "text": "hi", "more": [{"deep": {"file-id": "x"}}]}, "more[0].deep.file-id"),
    ],
)
def test_a_part_that_points_elsewhere_or_that_nobody_sorted_is_refused_by_its_path(part, path) -> None:
    assert refused(CHAT, messages=[{"role": "user", "content": [part]}]) == f"messages[0].content[0].{path}"


def test_names_are_read_after_json_escapes() -> None:
    raw = rb'{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file\u005fid":"x"}}]}]}'

    with pytest.raises(ApiError) as caught:
        DIALECTS[CHAT].read(quick_json.read(raw), body_bytes=len(raw))

    assert caught.value.param == "messages[0].content[0].file.file_id"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"arguments": {"models": 1}}}]},
        {"role": "assistant", "content": "x", "audio": None, "refusal": None, "annotations": [], "function_call": None},
        {
            "role": "assistant",
            "content": "x",
            "reasoning_content": "y",
            "reasoning_details": [{"id": "r", "data": "z"}],
        },
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": ["plain", {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}]},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"extra_content": {"google": {"thought_signature": "s"}}}],
        },
    ],
)
def test_a_message_that_a_client_sends_back_passes_unchanged(message) -> None:
    before = json.dumps(message)

    ask = read(CHAT, messages=[message])

    assert ask == Ask(
        model="m",
        fields={"model": "m", "messages": [json.loads(before)]},
        extent=ask.extent,
        shows_usage=False,
        said=ask.said,
    )
    assert ask.extent == Extent(input_tokens=1000)


def test_an_earlier_spoken_answer_is_refused_by_its_id() -> None:
    spoken = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert refused(CHAT, messages=[spoken]) == "messages[0].audio.id"


# -- Items ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({"id": "msg_1"}, "id"),
        ({"id": "msg_1", "type": None}, "id"),
        ({"type": "item_reference"}, "id"),
        ({"type": "item_reference", "id": None}, "id"),
        ({"type": "item_reference", "id": "msg_1", "file_id": "f"}, "file_id"),
        ({"type": "", "id": "msg_1"}, "id"),
        ({"type": "message", "role": "user", "id": "msg_1"}, "id"),
        ({"role": "user", "id": "msg_1", "content": None}, "id"),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, "id"),
        ({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f"}, "id"),
        ({"type": "image_generation_call", "id": "ig_1", "result": None}, "id"),
        ({"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": "f"}},
         "output.file_id"),
        ({"type": "computer_call_output", "call_id": "c", "output": {"type": "film"}}, "output.type"),
        ({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "f"}]},
         "output[0].file_id"),
        ({"type": "additional_tools", "tools": [{"type": "code_interpreter", "container": {"file_ids": ["f"]}}]},
         "tools[0].type"),
        ({"type": "tool_search_output", "tools": [{"type": "mcp", "server_url": "https://x"}]}, "tools[0].type"),
        ({"type": "configuration_update", "reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "content[0].file_id"),
        ({"type": "agent_message", "content": "x"}, "type"),
        ({}, "type"),
    ],
)  # fmt: skip
def test_an_item_that_only_points_elsewhere_is_refused_by_its_path(item, path) -> None:
    assert refused(RESPONSES, input=[item]) == f"input[0].{path}"


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "x",
         "annotations": [{"type": "container_file_citation", "container_id": "c", "file_id": "f"}]}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": ""},
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
        {"type": "local_shell_call", "id": "l", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "sources": [{"url": "https://x"}]}},
        {"type": "mcp_list_tools", "id": "x", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}]},
        {"type": "code_interpreter_call", "id": "x", "code": "1", "outputs": None},
    ],
)  # fmt: skip
def test_an_item_with_its_content_costs_its_bytes(item) -> None:
    assert read(RESPONSES, input=[item]).extent == Extent(input_tokens=1000)


def test_a_screenshot_and_a_made_picture_are_pictures() -> None:
    shot = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": PNG}}
    made = {"type": "image_generation_call", "id": "ig_1", "result": PNG.partition(",")[2]}

    assert read(RESPONSES, input=[shot, made]).media == Media(images=2)


def test_a_summarised_reasoning_item_loses_the_id_that_a_provider_would_look_up() -> None:
    ask = read(
        RESPONSES, input=[{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]}]
    )
    assert ask.fields["input"] == [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}]


def test_compacted_content_holds_the_context_window() -> None:
    assert read(RESPONSES, input=[{"type": "compaction", "encrypted_content": "x"}]).extent.context_reads == 1


@pytest.mark.parametrize(
    "body",
    [
        {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
        {"input": [{"role": "user", "content": "hi"}, {"type": "compaction_trigger"}]},
    ],
)
def test_compaction_is_a_second_run(body) -> None:
    assert read(RESPONSES, **body).extent == Extent(input_tokens=2000, prompts=2, outputs=2)


def test_an_earlier_response_and_a_conversation_are_pointers_that_hold_the_window() -> None:
    asks = [
        read(RESPONSES, input="hi", previous_response_id="resp_1"),
        read(RESPONSES, input="hi", conversation="conv_1"),
        read(RESPONSES, input="hi", conversation={"id": "conv_1"}),
    ]

    assert [ask.pointers for ask in asks] == [
        (Pointer("previous_response_id", "resp_1"),),
        (Pointer("conversation", "conv_1"),),
        (Pointer("conversation.id", "conv_1"),),
    ]
    assert [ask.extent.context_reads for ask in asks] == [1, 1, 1]
    assert [ask.conversation for ask in asks] == ["resp_1", "conv_1", "conv_1"]


def test_references_to_items_are_pointers_that_hold_the_window_once() -> None:
    references = [{"type": "item_reference", "id": name} for name in ("rs_1", "fc_1", "rs_1")]
    output = {"type": "function_call_output", "call_id": "c", "output": "4"}

    ask = read(RESPONSES, input=[*references, output])

    assert ask.pointers == (
        Pointer("input[0].id", "rs_1"),
        Pointer("input[1].id", "fc_1"),
        Pointer("input[2].id", "rs_1"),
    )
    assert ask.extent.context_reads == 1
    assert ask.fields["input"] == [*references, output]


def test_a_request_names_no_more_than_a_thousand_kept_items() -> None:
    references = [{"type": "item_reference", "id": f"msg_{at}"} for at in range(MAX_REFERENCES + 1)]

    assert len(read(RESPONSES, input=references[:-1]).pointers) == MAX_REFERENCES
    assert refused(RESPONSES, input=references) == f"input[{MAX_REFERENCES}].id"


# -- Tools ------------------------------------------------------------------------------------------------------------


def test_client_tools_pass_whatever_their_schemas_name_and_hold_the_providers_instructions() -> None:
    ask = read(CHAT, messages=HI, tools=[FUNCTION, {"type": "custom", "custom": {"name": "c"}}])

    assert (ask.fields["tools"][0], ask.needs) == (FUNCTION, ())
    assert ask.extent == Extent(input_tokens=2000)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"}, {"type": "browser_search"}, {"type": "code_interpreter"}, {"type": "retrieval"},
        {"type": "x_search"}, {"type": "mcp"}, {"type": "builtin_function", "function": {"name": "$web_search"}},
        {"google_search": {}}, {"function": {"name": "f"}}, {"type": "live_search"},
    ],
)  # fmt: skip
def test_tools_of_chat_that_run_at_the_provider_are_refused(tool) -> None:
    assert refused(CHAT, messages=HI, tools=[FUNCTION, tool]) == "tools[1].type"


def test_a_second_tool_hidden_in_a_function_is_refused() -> None:
    assert refused(CHAT, messages=HI, tools=[FUNCTION | {"googleSearch": {}}]) == "tools[0].googleSearch"


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ({"type": "file_search", "vector_store_ids": ["vs_1"]}, "type"),
        ({"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}, "type"),
        ({"type": "mcp", "server_url": "https://x"}, "type"),
        ({"type": "programmatic_tool_calling"}, "type"),
        ({"type": "shell", "environment": {"type": "container_auto"}}, "environment.type"),
        ({"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}, "environment.type"),
        ({"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"type": "image_generation", "model": "gpt-image-2"}, "model"),
        ({"type": "image_generation", "svg": {"model": "gpt-6-sol"}}, "svg"),
        ({"type": "image_generation", "output_format": "svg"}, "output_format"),
        ({"type": "image_generation", "input_image_mask": {"file_id": "f"}}, "input_image_mask.file_id"),
        ({"type": "image_generation", "video": True}, "video"),
        ({"type": "web_search", "model": "x"}, "model"),
        ({"type": "local_shell", "environment": {"type": "container_auto"}}, "environment"),
        ({"type": "function", "name": "f", "tools": [{"type": "mcp"}]}, "tools"),
        ({"type": "teleport"}, "type"),
    ],
)
def test_tools_without_a_bound_are_refused(tool, path) -> None:
    assert refused(RESPONSES, input="hi", tools=[tool]) == f"tools[0].{path}"


@pytest.mark.parametrize(("asked", "calls"), [({}, 5), ({"max_tool_calls": 3}, 3), ({"max_tool_calls": 1000}, 20)])
def test_web_search_is_priced_by_its_cap_and_reads_the_window_again_after_each_call(asked, calls) -> None:
    ask = read(RESPONSES, input="hi", tools=[{"type": "web_search"}], **asked)

    assert ask.extent == Extent(input_tokens=2000, searches=calls, context_reads=calls + 1)
    assert (ask.needs, ask.fields["max_tool_calls"]) == ((Need("tools[0].type", "per_search"),), calls)


def test_media_are_held_at_the_models_ceilings() -> None:
    spoken, seen = audio(wave(61, rate=8000, bits=8)), {"type": "image_url", "image_url": {"url": PNG}}

    ask = chat(spoken, seen, seen)

    extent = extent_of(ask, image_nanos_ceiling=100, audio_minute_nanos_ceiling=7)
    free = extent_of(ask, image_nanos_ceiling=0, audio_minute_nanos_ceiling=0)
    assert (extent.media_nanos, free.media_nanos) == (214, 1)


def test_search_options_of_chat_hold_five_searches() -> None:
    ask = read(CHAT, messages=HI, web_search_options={})

    assert ask.extent == Extent(input_tokens=1000, searches=5, context_reads=6)
    assert ask.needs == (Need("web_search_options", "per_search"),)


def test_a_container_in_an_item_may_add_its_files_up_to_the_window() -> None:
    item = {"type": "code_interpreter_call", "id": "x", "code": "1", "container_id": "c"}
    assert read(RESPONSES, input=[item]).extent.context_reads == 1


def test_sound_behind_a_link_is_refused() -> None:
    part = {"type": "input_audio", "input_audio": {"url": "https://sounds.example/1.mp3"}}
    assert refused(CHAT, messages=[{"role": "user", "content": [part]}]) == "messages[0].content[0].input_audio.url"


def test_tool_search_of_the_server_is_refused_and_of_the_client_takes_no_turns() -> None:
    assert refused(RESPONSES, input="hi", tools=[{"type": "tool_search"}]) == "tools[0].type"
    server = {"type": "tool_search", "execution": "server"}
    assert refused(RESPONSES, input="hi", tools=[server]) == "tools[0].execution"
    assert read(RESPONSES, input="hi", tools=[{"type": "tool_search", "execution": "client"}]).extent.context_reads == 0


def test_a_shell_without_an_environment_is_the_clients() -> None:
    ask = read(RESPONSES, input="hi", tools=[{"type": "shell"}])
    assert ask.fields["tools"] == [{"type": "shell", "environment": {"type": "local"}}]


def test_made_pictures_are_held_at_the_tools_own_prices() -> None:
    row = PriceRow(
        {"input": 1_000_000, "output": 2_000_000, "image_output": 3_000_000}, (("tool", "image_generation"),)
    )
    prices = PriceList(Rate(per_search=1), (row,))
    ask = read(RESPONSES, input="hi", tools=[{"type": "image_generation", "n": 2}], max_tool_calls=3)

    check(ask, prices)
    extent = extent_of(ask, image_nanos_ceiling=7, audio_minute_nanos_ceiling=7, prices=prices)

    # 3 calls × 2 pictures × (32,000 tokens read at 1 nano + 32,000 tokens made at 3 nanos).
    assert (extent.tool_nanos, extent.context_reads) == (6 * (32_000 + 96_000), 4)
    assert ask.needs == (Need("tools[0].type", "tool=image_generation"),)


# -- Priced fields ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "sent", "fact"),
    [
        ("auto", "default", None), ("default", "default", None), ("on_demand", "on_demand", None),
        ("priority", "priority", "priority"), ("fast", "fast", "priority"), ("FLEX", "FLEX", "flex"),
        ("scale", "scale", "scale"), ("ultrafast", "ultrafast", "ultrafast"), ("platinum", "platinum", "platinum"),
    ],
)  # fmt: skip
def test_every_tier_but_the_standard_one_needs_a_row(tier, sent, fact) -> None:
    ask = read(CHAT, messages=HI, service_tier=tier)

    assert ask.fields["service_tier"] == sent
    assert ask.facts == ({"service_tier": fact} if fact else {})
    assert ask.needs == ((Need("service_tier", f"service_tier={fact}"),) if fact else ())


@pytest.mark.parametrize(
    ("body", "needs", "writes"),
    [
        ({"prompt_cache_options": {"ttl": "30m"}}, (), ()),
        ({"prompt_cache_options": {"ttl": "12h"}}, (Need("prompt_cache_options.ttl", "cache_write_12h"),),
         ("cache_write_12h",)),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, (Need("cache_control.ttl", "cache_write_1h"),),
         ("cache_write_1h",)),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, (Need("modalities", "audio_output"),), ()),
        ({"audio": {"voice": "alloy"}}, (Need("audio", "audio_output"),), ()),
        ({"modalities": ["text"], "audio": None}, (), ()),
        ({"response_modalities": ["TEXT", "AUDIO"]}, (Need("response_modalities", "audio_output"),), ()),
        ({"responseModalities": ["audio"]}, (Need("responseModalities", "audio_output"),), ()),
        ({"response_modalities": ["TEXT"]}, (), ()),
        ({"moderation": {"model": "omni"}}, (Need("moderation.model", "moderation=omni"),), ()),
        ({"speed": "fast"}, (Need("speed", "speed=fast"),), ()),
        ({"speed": "standard", "inference_geo": "us"}, (Need("inference_geo", "inference_geo=us"),), ()),
    ],
)  # fmt: skip
def test_what_costs_beside_plain_tokens_needs_a_price(body, needs, writes) -> None:
    ask = read(CHAT, messages=HI, **body)

    assert (ask.needs, ask.extent.cache_writes) == (needs, writes)
    assert ask.extent.has_audio_output == any(need.price == "audio_output" for need in needs)


def test_a_cache_mark_in_a_part_names_its_path() -> None:
    ask = chat({"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}})
    assert ask.needs == (Need("messages[0].content[0].prompt_cache_breakpoint.ttl", "cache_write_12h"),)


def test_check_names_the_first_need_without_a_price() -> None:
    ask = read(CHAT, messages=HI, service_tier="fast", modalities=["audio"])
    tiers = (PriceRow({}, (("service_tier", "priority"),)),)

    check(ask, PriceList(Rate(audio_output=1), tiers))
    for prices, param in ((PriceList(Rate(audio_output=1)), "service_tier"), (PriceList(Rate(), tiers), "modalities")):
        with pytest.raises(ApiError) as caught:
            check(ask, prices)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ({"thinking_budget": 100}, 2),
        ({"enable_thinking": True, "n": 3}, 6),
        ({"enable_thinking": False}, 1),
        ({"thinking_token_budget": 100}, 2),
        ({"reasoning_budget": 100}, 2),
        ({"chat_template_kwargs": {"enable_thinking": True, "thinking_budget": 30_000}}, 2),
        ({"chat_template_kwargs": {"enable_thinking": True}}, 2),
        ({"chat_template_kwargs": {"thinking": True}}, 2),
        ({"chat_template_kwargs": {"thinking_budget": 30_000}, "enable_thinking": True}, 2),
        ({"chat_template_kwargs": {"enable_thinking": False, "model_identity": "You are x."}}, 1),
        ({"chat_template_kwargs": None}, 1),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, 1),
        ({"reasoning": {"effort": "high", "max_tokens": 100}}, 1),
    ],
)
def test_thinking_beside_the_limit_is_held_twice(body, outputs) -> None:
    assert read(CHAT, messages=HI, **body).extent.outputs == outputs


# -- Refused and unknown fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("models", ["a"]), ("fallbacks", ["a"]), ("route", "fallback"), ("provider", {"order": ["x"]}),
        ("plugins", [{"id": "web"}]), ("data_sources", [{}]), ("dataSources", [{}]), ("extra_body", {"a": 1}),
        ("litellm_params", {}), ("litellm_new_thing", 1), ("background", True), ("deferred", True), ("priority", 1),
        ("chat_template", "{% for %}"), ("prompt_embeds", "x"), ("enable_search", True), ("search_parameters", {}),
        ("web_search", {}), ("compound_custom", {}), ("safety_model", "x"), ("guardrails", ["x"]), ("lora", [1]),
        ("kv_transfer_params", {}), ("access_programs", {"cyber": "daybreak_red"}), ("multi_agent", {}),
        ("background_options", {"completion_window": "8h"}), ("mcp_servers", [{}]), ("container", "c"),
        # Unknown names that speak of a choice, and of content elsewhere.
        ("answering_model", "x"), ("fall_back_models", ["x"]), ("smartRouting", True), ("toolset", "x"),
        ("deep_research", True), ("max_response_tokens", 10**9), ("maxOutputLength", 10**9), ("conversation", "c"),
        ("images", ["https://x/y.png"]), ("previous_response_id", "r"), ("connectors", ["x"]),
        ("tiering", "x"), ("batch_mode", 1), ("knowledge_id", "x"), ("webhook-url", "x"),
        ("Model", "x"), ("Messages", []), ("N", 100), ("serviceTier", "priority"), ("x" * 101, 1),
        # A structure that hides a judged name.
        ("options", {"num_predict": 10**9}), ("google", {"cached_content": "x"}), ("zeta", [{"models": ["x"]}]),
        ("parameters", {"max_new_tokens": 10**9}), ("omega", {"part": {"type": "video_url"}}),
    ],
)  # fmt: skip
def test_a_field_that_could_cost_more_is_refused_by_name(name, value) -> None:
    param = refused(CHAT, messages=HI, **{name: value})
    assert param is not None and param.startswith(name)


@pytest.mark.parametrize("name", ["models", "background", "deferred", "plugins", "answering_model", "dataSources"])
def test_a_refused_field_that_says_no_is_left_out(name) -> None:
    assert read(CHAT, messages=HI, **{name: None}).fields == {"model": "m", "messages": HI}
    assert read(CHAT, messages=HI, **{name: False}).fields == {"model": "m", "messages": HI}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"input": {"role": "user"}}, "input"),
        ({"context_management": [{"type": "pruning"}]}, "context_management[0].type"),
    ],
)
def test_fields_of_responses_without_a_bound_are_refused(body, param) -> None:
    assert refused(RESPONSES, **({"input": "hi"} | body)) == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"modalities": ["image"]}, "modalities[0]"),
        ({"modalities": ["text", "video"]}, "modalities[1]"),
        ({"response_modalities": ["TEXT", "IMAGE"]}, "response_modalities[1]"),
        ({"responseModalities": ["IMAGE"]}, "responseModalities[0]"),
        ({"output_modalities": [["audio"]]}, "output_modalities[0]"),
        ({"Response-Modalities": ["AUDIO"]}, "Response-Modalities"),
        ({"generation_config": {"responseModalities": ["AUDIO"]}}, "generation_config.responseModalities"),
        ({"speech_config": {"language": "de"}}, "speech_config"),
    ],
)
def test_modalities_without_a_bound_are_refused(body, param) -> None:
    assert refused(CHAT, messages=HI, **body) == param


def test_a_voice_of_ones_own_is_refused() -> None:
    assert refused(CHAT, messages=HI, audio={"voice": {"id": "voice_1"}}) == "audio.voice.id"


def test_unknown_fields_pass_and_are_listed_for_upstreams_that_refuse_them() -> None:
    ask = read(CHAT, messages=HI, top_p=0.5, mirostat=2, reasoning_split=True, Temperature=1, nested={"a": [1]})

    assert ask.unknown == ("mirostat", "reasoning_split", "Temperature", "nested")
    check_unknown(ask, Profile())
    with pytest.raises(ApiError) as caught:
        check_unknown(ask, Profile(unknown_fields="refuse"))
    assert caught.value.param == "mirostat"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": "hi"}, "messages"),
        (CHAT, {"messages": ["hi"]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
        (
            CHAT,
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "https://" + "x" * 9000}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
        (CHAT, {"stream": "yes"}, "stream"),
        (CHAT, {"stream": 1}, "stream"),
        (CHAT, {"stream_options": [1]}, "stream_options"),
        (CHAT, {"tools": {}}, "tools"),
        (CHAT, {"service_tier": 1}, "service_tier"),
        (CHAT, {"cache_control": {"ttl": "7d"}}, "cache_control.ttl"),
        (CHAT, {"model": ""}, "model"),
        (CHAT, {"model": ["m"]}, "model"),
        (CHAT, {"model": "m\0"}, "model"),
        (RESPONSES, {"previous_response_id": 7}, "previous_response_id"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": 7}]}, "input[0].id"),
        (RESPONSES, {"max_tool_calls": 0, "input": "hi"}, "max_tool_calls"),
        (RESPONSES, {"tools": [{"type": "image_generation", "n": 11}]}, "tools[0].n"),
    ],
)
def test_a_value_of_another_type_is_named(path, body, param) -> None:
    assert wrong(path, **body) == param


def test_a_coding_agents_request_passes_and_is_written_as_it_came() -> None:
    body = {
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA", "content": None},
            {
                "type": "custom_tool_call",
                "status": "completed",
                "call_id": "c1",
                "name": "apply_patch",
                "input": "*** P",
            },
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "Success"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_image", "image_url": PNG}]},
        ],
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": {"properties": {"model": {}}}},
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "high", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "thread-1",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "i"},
    }

    ask = read(RESPONSES, **json.loads(json.dumps(body)))

    assert ask.fields == {"model": "m"} | body
    assert (ask.needs, ask.pointers, ask.unknown, ask.conversation) == ((), (), (), "thread-1")
    assert (ask.media, ask.extent.context_reads, ask.is_stream, ask.shows_usage) == (Media(images=1), 0, True, True)


# -- Worked examples --------------------------------------------------------------------------------------------------


def test_a_hundred_prompts_with_best_of_20_hold_two_hundred_thousand_tokens() -> None:
    body = {"model": "m", "prompt": ["a"] * 100, "best_of": 20, "max_tokens": 100}
    ask = DIALECTS[COMPLETIONS].read(body, body_bytes=500)
    rate = Rate(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)

    assert bound_nanos(rate, ask.extent, output_tokens=ask.limit) == 2_001_250_000


def test_300_000_bytes_hold_the_dearest_tier_that_they_may_reach() -> None:
    tier = {"input": 8_000_000_000, "cache_write_5m": 10_000_000_000, "output": 30_000_000_000}
    base = Rate(input=4_000_000_000, cached_input=400_000_000, cache_write_5m=5_000_000_000, output=20_000_000_000)
    prices = PriceList(base, (PriceRow(tier, above=272_000),))
    body = {"model": "m", "messages": HI, "max_completion_tokens": 1000}

    ask = DIALECTS[CHAT].read(body, body_bytes=300_000)
    rate = prices.dearest(input_tokens=ask.extent.input_tokens)

    assert bound_nanos(rate, ask.extent, output_tokens=ask.limit) == 3_030_000_000
