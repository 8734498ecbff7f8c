"""Streams of many dialects: what a client that did not ask for usage gets of them, and what is read in them."""

from __future__ import annotations

import json
from typing import Any

from tests.relay.answer_dialects import CHAT

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COUNTS = {"input": 7, "output": 3}
HELLO: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
END: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = b"data: [DONE]\n\n"


def event(payload: object, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


# (name, events of the upstream, those of the client)
Row = tuple[str, list[bytes], list[bytes]]
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": None}


def raw(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


USAGE_TEXT = '{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'
WITHHELD: list[Row] = [
    (
        "OpenAI",
        [event(HELLO | {"usage": None}), event(CHUNK | {"choices": [], "usage": USAGE})],
        [event(HELLO | {"usage": None})],
    ),
    ("LiteLLM's empty choice", [event({"choices": [{"index": 0, "delta": {}}], "usage": USAGE})], []),
    (
        "a choice with nulls",
        [
            event(
                {
                    "choices": [{"index": 0, "delta": {"content": None}, "finish_reason": None, "logprobs": None}],
                    "usage": USAGE,
                }
            )
        ],
        [],
    ),
    (
        "completions' empty text",
        [event({"choices": [{"index": 0, "text": "", "finish_reason": None}], "usage": USAGE})],
        [],
    ),
    ("no choices at all", [event(CHUNK | {"usage": USAGE})], []),
    ("choices null", [event(CHUNK | {"choices": None, "usage": USAGE})], []),
    ("Mistral, beside the end", [event(END | {"usage": USAGE})], [event(END)]),
    ("Groq", [event(END | {"x_groq": {"id": "r", "usage": USAGE}})], [event(END | {"x_groq": {"id": "r"}})]),
    (
        "Groq twice",
        [event(END | {"x_groq": {"id": "r", "usage": USAGE}, "usage": USAGE})],
        [event(END | {"x_groq": {"id": "r"}})],
    ),
    ("Groq's usage chunk", [event({"choices": [], "usage": USAGE, "x_groq": {"id": "r", "usage": USAGE}})], []),
    (
        "Moonshot",
        [event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]})],
        [event(END)],
    ),
    (
        "Moonshot twice",
        [event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}], "usage": USAGE})],
        [event(END)],
    ),
    (
        "two choices with usage",
        [event({"choices": [{"index": 0, "text": "a", "usage": USAGE}, {"index": 1, "text": "b", "usage": USAGE}]})],
        [event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]})],
    ),
    ("vLLM's role with usage", [event(ROLE | {"usage": USAGE})], [event(ROLE)]),
    (
        "OpenRouter's last",
        [
            event(
                CHUNK
                | {
                    "provider": "p",
                    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
                    "usage": USAGE | {"cost": 0.1},
                }
            )
        ],
        [event(CHUNK | {"provider": "p", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})],
    ),
    ("an empty usage object", [event(HELLO | {"usage": {}}), event({"choices": [], "usage": USAGE})], [event(HELLO)]),
    (
        "Azure's filter results with usage",
        [event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "usage": USAGE})],
        [event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})],
    ),
    (
        "Azure's filter results first",
        [
            event({"choices": [], "prompt_filter_results": [{"a": 1}], "usage": None}),
            event({"choices": [], "usage": USAGE}),
        ],
        [event({"choices": [], "prompt_filter_results": [{"a": 1}], "usage": None})],
    ),
    (
        "llama.cpp's timings",
        [event({"choices": [], "usage": USAGE, "timings": {"prompt_n": 5}})],
        [event({"choices": [], "timings": {"prompt_n": 5}})],
    ),
    (
        "blanks as they were",
        [
            raw(
                '{"choices" : [ {"index":0,"delta":{"content":"é\\u00e9 1.0"}} ], "usage" : '
                + USAGE_TEXT
                + ' , "n":1.50}'
            )
        ],
        [raw('{"choices" : [ {"index":0,"delta":{"content":"é\\u00e9 1.0"}} ], "n":1.50}')],
    ),
    (
        "usage first",
        [raw('{"usage":' + USAGE_TEXT + ',"choices":[{"index":0,"delta":{"content":"x"}}]}')],
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}]}')],
    ),
    (
        "usage last, with blanks",
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}], "usage": ' + USAGE_TEXT + " }")],
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}] }')],
    ),
    (
        "the word usage in the text",
        [raw('{"choices":[{"index":0,"delta":{"content":"\\"usage\\":{\\"a\\":1}"}}],"usage":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"index":0,"delta":{"content":"\\"usage\\":{\\"a\\":1}"}}]}')],
    ),
    (
        "a tool named usage",
        [
            raw(
                '{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"usage"}}]}}],"usage":'
                + USAGE_TEXT
                + "}"
            )
        ],
        [raw('{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"usage"}}]}}]}')],
    ),
    (
        "usage deeper down stays",
        [raw('{"choices":[{"index":0,"delta":{"usage":{"a":1}}}],"usage":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"index":0,"delta":{"usage":{"a":1}}}]}')],
    ),
    (
        "an escaped name",
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}],"us\\u0061ge":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}]}')],
    ),
    (
        "the name twice",
        [raw('{"usage":null,"choices":[{"index":0,"delta":{"content":"x"}}],"usage":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"index":0,"delta":{"content":"x"}}]}')],
    ),
    (
        "several data lines",
        [
            b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],\ndata: "usage":'
            + USAGE_TEXT.encode()
            + b"}\nid: 5\n\n"
        ],
        [b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\nid: 5\n\n'],
    ),
    (
        "no blank, CRLF, and a name",
        [b'event: chunk\r\ndata:{"choices":[{"index":0,"text":"x"}],"usage":' + USAGE_TEXT.encode() + b"}\r\n\r\n"],
        [b'event: chunk\r\ndata:{"choices":[{"index":0,"text":"x"}]}\r\n\r\n'],
    ),
    ("CR alone", [b'data: {"choices":[],"usage":' + USAGE_TEXT.encode() + b"}\r\r", b": c\r\r"], [b": c\r\r"]),
    (
        "CR alone, cut",
        [b'data: {"choices":[{"text":"x"}],"usage":' + USAGE_TEXT.encode() + b"}\r\r"],
        [b'data: {"choices":[{"text":"x"}]}\r\r'],
    ),
    (
        "a byte order mark",
        [b'\xef\xbb\xbfdata: {"choices":[{"text":"x"}],"usage":' + USAGE_TEXT.encode() + b"}\n\n"],
        [b'\xef\xbb\xbfdata: {"choices":[{"text":"x"}]}\n\n'],
    ),
    (
        "comments and pings",
        [b": OPENROUTER PROCESSING\n\n", b":\n\n", b"\n", event({"choices": [], "usage": USAGE})],
        [b": OPENROUTER PROCESSING\n\n", b":\n\n", b"\n"],
    ),
    (
        "an error with usage",
        [event({"error": {"code": 502, "message": "no"}, "choices": [], "usage": USAGE})],
        [event({"error": {"code": 502, "message": "no"}, "choices": []})],
    ),
    (
        "a lone surrogate",
        [raw('{"choices":[{"text":"\\ud83d"}],"usage":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"text":"\\ud83d"}]}')],
    ),
    (
        "NaN",
        [raw('{"choices":[{"text":"a","logprobs":NaN}],"usage":' + USAGE_TEXT + "}")],
        [raw('{"choices":[{"text":"a","logprobs":NaN}]}')],
    ),
    ("digits and floats", [event(END | {"usage": {"prompt_tokens": "7", "completion_tokens": 3.0}})], [event(END)]),
    (
        "zeros at the end",
        [
            event(HELLO | {"usage": USAGE}),
            event({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}),
            event(END | {"usage": {}}),
        ],
        [event(HELLO), event(END)],
    ),
    (
        "no blank line at the end",
        [event(HELLO), b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode()],
        [event(HELLO)],
    ),
]


def responses(kind: str, **fields: object) -> bytes:
    return event({"type": kind} | fields, kind)


ITEM = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
# (name, path, stream, counts, text bytes, whether it ended)
Dialect = tuple[str, str, bytes, dict[str, int] | None, int, bool]
DIALECTS: list[Dialect] = [
    (
        "Responses, which repeats its text",
        "/responses",
        responses("response.created", response={"id": "r", "object": "response", "usage": None, "output": []})
        + responses("response.output_text.delta", delta="Hel", obfuscation="xxxxxxxx")
        + responses("response.output_text.delta", delta="lo")
        + responses("response.output_text.done", text="Hello")
        + responses("response.content_part.done", part=ITEM["content"][0])
        + responses("response.output_item.done", item=ITEM)
        + responses(
            "response.completed", response={"output": [ITEM], "usage": {"input_tokens": 7, "output_tokens": 3}}
        ),
        COUNTS,
        5,
        True,
    ),
    (
        "Responses with items alone",
        "/responses",
        responses("response.output_item.done", item=ITEM) + responses("response.output_item.done", item=ITEM),
        None,
        10,
        False,
    ),
    (
        "Responses, cancelled",
        "/responses",
        responses("response.cancelled", response={"usage": {"input_tokens": 7, "output_tokens": 3}}),
        COUNTS,
        0,
        True,
    ),
    (
        "Responses with tools",
        "/responses",
        responses("response.output_item.done", item={"type": "web_search_call", "status": "completed"})
        + responses("response.completed", response={"output": [], "usage": {"input_tokens": 7, "output_tokens": 3}}),
        COUNTS | {"searches": 1},
        0,
        True,
    ),
    (
        "Responses with a citation",
        "/responses",
        responses("response.output_text.annotation.added", annotation={"type": "url_citation"})
        + responses("response.completed", response={"usage": {"input_tokens": 7, "output_tokens": 3}}),
        COUNTS | {"searches": 1},
        0,
        True,
    ),
    (
        "arguments and reasoning of Responses",
        "/responses",
        responses("response.function_call_arguments.delta", delta="{}")
        + responses("response.reasoning_summary_text.delta", delta="hm"),
        None,
        4,
        False,
    ),
    (
        "Anthropic's tools and thinking",
        "/messages",
        event(
            {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}},
            "message_start",
        )
        + event({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}})
        + event({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}})
        + event({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}})
        + event({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "xxxx"}})
        + event({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}})
        + event({"type": "message_stop"}),
        COUNTS,
        7,
        True,
    ),
    (
        "Anthropic, which raises its input",
        "/messages",
        event({"type": "message_start", "message": {"usage": {"input_tokens": 2, "output_tokens": 1}}})
        + event(
            {"type": "message_delta", "usage": {"input_tokens": 7, "cache_read_input_tokens": 90, "output_tokens": 3}}
        ),
        COUNTS | {"cached": 90},
        0,
        False,
    ),
    (
        "Gemini",
        CHAT,
        event(
            {
                "candidates": [{"content": {"parts": [{"text": "Hel"}]}}],
                "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
            }
        )
        + event(
            {
                "candidates": [{"content": {"parts": [{"text": "lo"}]}, "finishReason": "STOP"}],
                "usageMetadata": {
                    "promptTokenCount": 7,
                    "candidatesTokenCount": 1,
                    "thoughtsTokenCount": 2,
                    "totalTokenCount": 10,
                },
            }
        ),
        COUNTS,
        5,
        True,
    ),
    (
        "Cohere",
        CHAT,
        event({"type": "message-start", "delta": {"message": {"role": "assistant"}}})
        + event({"type": "content-delta", "delta": {"message": {"content": {"text": "Hello"}}}})
        + event(
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {
                        "billed_units": {"input_tokens": 7.0, "output_tokens": 3.0},
                        "tokens": {"input_tokens": 70},
                    },
                },
            }
        ),
        COUNTS,
        5,
        True,
    ),
    (
        "Cloudflare",
        CHAT,
        event({"response": "Hello"}) + event({"response": "", "usage": USAGE}) + DONE,
        COUNTS,
        5,
        True,
    ),
    (
        "MiniMax, which repeats its text",
        CHAT,
        event(HELLO) + event({"choices": [{"finish_reason": "stop", "message": {"content": "Hello"}}], "usage": USAGE}),
        COUNTS,
        5,
        True,
    ),
    (
        "Perplexity, which repeats its text in every chunk",
        CHAT,
        event(
            {
                "choices": [{"delta": {"content": "Hel"}, "message": {"content": "Hel"}}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 1},
            }
        )
        + event({"choices": [{"delta": {"content": "lo"}, "message": {"content": "Hello"}}], "usage": USAGE}),
        COUNTS,
        5,
        False,
    ),
    (
        "two names of one reasoning",
        CHAT,
        event({"choices": [{"delta": {"content": "", "reasoning": "abcd", "reasoning_details": [{"text": "abcd"}]}}]}),
        None,
        4,
        False,
    ),
    (
        "DeepSeek's reasoning",
        CHAT,
        event({"choices": [{"delta": {"role": "assistant", "content": None, "reasoning_content": "abcd"}}]}),
        None,
        4,
        False,
    ),
    (
        "tool calls",
        CHAT,
        event(
            {
                "choices": [
                    {"delta": {"tool_calls": [{"id": "call_12345", "function": {"name": "f", "arguments": "{}"}}]}}
                ]
            }
        ),
        None,
        3,
        False,
    ),
    (
        "refusal and transcript",
        CHAT,
        event({"choices": [{"delta": {"refusal": "no", "audio": {"transcript": "hi", "data": "xxxxxxxx"}}}]}),
        None,
        4,
        False,
    ),
    (
        "escapes count as what they stand for",
        CHAT,
        b'data: {"choices":[{"delta":{"content":"\\u00e9\\n\\"x"}}]}\n\n',
        None,
        5,
        False,
    ),
    (
        "content in parts",
        CHAT,
        event(
            {
                "choices": [
                    {
                        "delta": {
                            "content": [
                                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                                {"type": "text", "text": "x"},
                            ]
                        }
                    }
                ]
            }
        ),
        None,
        3,
        False,
    ),
    (
        "completions",
        "/completions",
        event({"choices": [{"text": "Hel"}]}) + event({"choices": [{"text": "lo", "finish_reason": "length"}]}),
        None,
        5,
        True,
    ),
    (
        "logprobs are no text",
        CHAT,
        event({"choices": [{"delta": {"content": "ab"}, "logprobs": {"content": [{"token": "ab", "text": "ab"}]}}]}),
        None,
        2,
        False,
    ),
    ("plain text as data", CHAT, b"data: Hello\n\n", None, 5, False),
    ("only [DONE]", CHAT, event(HELLO) + DONE, None, 5, True),
    ("cut off", CHAT, event(HELLO), None, 5, False),
    (
        "a citation in a chunk",
        CHAT,
        event(HELLO)
        + event({"choices": [{"delta": {"annotations": [{"type": "url_citation"}]}}]})
        + event({"choices": [], "usage": USAGE}),
        COUNTS | {"searches": 1},
        5,
        False,
    ),
    (
        "transcription",
        "/audio/transcriptions",
        event({"type": "transcript.text.delta", "delta": "Hello"})
        + event(
            {
                "type": "transcript.text.done",
                "text": "Hello",
                "usage": {
                    "type": "tokens",
                    "input_tokens": 7,
                    "input_token_details": {"audio_tokens": 6, "text_tokens": 1},
                    "output_tokens": 3,
                },
            }
        ),
        {"input": 1, "audio_input": 6, "output": 3},
        5,
        True,
    ),
]
