"""Tools by type: which run at the client, which at the provider, and what those cost at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.dialects import media
from relay.dialects.ask import Need
from relay.dialects.content import Keys, elsewhere, free, read_keys
from relay.dialects.names import CHOICE, ELSEWHERE, UNBOUNDED, UNSORTED, unsupported, words
from relay.dialects.reading import TOOLS_PREAMBLE_TOKENS, Reading, integer, mapping, objects

ToolJudge = Callable[[Reading, dict[str, Any], str], None]

DEFAULT_TOOL_CALLS = 5
MAX_TOOL_CALLS = 20
MAX_PICTURES = 10
MAX_FRAMES = 16
# OpenAI's image tokens of the largest picture at the best quality, with its partial pictures, rounded up.
MAX_PICTURE_TOKENS = 32_000
# What an image model reads for one picture: its prompt and the pictures that it edits.
MAX_PICTURE_INPUT_TOKENS = 32_000

# Keys of tools that run at the client. Other keys are refused: some providers take them for tools of their own.
_CLIENT_KEYS = frozenset(
    words("""
    type function custom name description parameters strict format cache_control defer_loading allowed_callers
    input_examples output_schema async input_schema
    """)
)
_SEARCH_KEYS = frozenset(
    words("""
    type external_web_access filters search_context_size user_location search_content_types cache_control
    """)
)

# How much of what is found is read is within the window that each call is held at.
_SEARCH: Keys = dict.fromkeys(("search_context_size", "search_content_types"), free)

_MORE_KEYS = {
    "namespace": frozenset({"tools"}),
    "tool_search": frozenset({"execution"}),
    "shell": frozenset({"environment"}),
    "computer": frozenset({"display_height", "display_width", "environment"}),
    "computer_use_preview": frozenset({"display_height", "display_width", "environment"}),
}


def _known_keys(tool: dict[str, Any], keys: frozenset[str], path: str) -> None:
    for name in tool:
        if name not in keys:
            raise unsupported(f"{path}.{name}", UNSORTED)


def _client(reading: Reading, tool: dict[str, Any], path: str) -> None:
    _known_keys(tool, _CLIENT_KEYS | _MORE_KEYS.get(tool["type"], frozenset()), path)
    read_keys(reading, tool, _TOOL, path)


def read_function(reading: Reading, value: Any, path: str) -> None:
    """What the client's tool is called and takes. Its schemas may name properties as they like."""
    if value is not None:
        read_keys(reading, mapping(value, path), _FUNCTION, path)


_FUNCTION: Keys = dict.fromkeys(("parameters", "input_schema", "output_schema", "input_examples", "format"), free)
# Those of some types are judged by their tool: `tools` and `environment`.
_TOOL: Keys = {
    **_FUNCTION,
    **dict.fromkeys(("function", "custom"), read_function),
    **dict.fromkeys(("tools", "environment"), free),
}


def _built_in(reading: Reading, tool: dict[str, Any], path: str) -> None:
    # The provider writes the tool's description into the prompt.
    _client(reading, tool, path)
    reading.added_tokens += TOOLS_PREAMBLE_TOKENS


def _shell(reading: Reading, tool: dict[str, Any], path: str) -> None:
    """A shell without an environment is the client's; it is written down, lest a provider starts a container for it."""
    environment = mapping(tool.setdefault("environment", {"type": "local"}), f"{path}.environment")
    if environment.get("type") != "local":
        raise unsupported(f"{path}.environment.type", UNBOUNDED)
    read_keys(reading, environment, {}, f"{path}.environment")
    _built_in(reading, tool, path)


def _namespace(reading: Reading, tool: dict[str, Any], path: str) -> None:
    _client(reading, tool, path)
    for at, inner in enumerate(objects(tool.get("tools") or [], f"{path}.tools")):
        read_tool(reading, inner, f"{path}.tools[{at}]", CHAT_TOOLS)


def _tool_search(reading: Reading, tool: dict[str, Any], path: str) -> None:
    # One that the provider runs has no fee and no bound: its results are read again in each turn.
    if tool.get("execution") != "client":
        raise unsupported(f"{path}.execution" if "execution" in tool else f"{path}.type", UNBOUNDED)
    _client(reading, tool, path)


def _web_search(reading: Reading, tool: dict[str, Any], path: str) -> None:
    _known_keys(tool, _SEARCH_KEYS, path)
    read_keys(reading, tool, _SEARCH, path)
    reading.needs.append(Need(f"{path}.type", "per_search"))
    reading.takes_turns = reading.has_searches = True


def _image_generation(reading: Reading, tool: dict[str, Any], path: str) -> None:
    """Each call makes `n` pictures (of a GIF, frames) at the largest number of tokens, at the tool's own price row."""
    for name in ("model", "svg"):
        if tool.get(name) is not None:
            raise unsupported(f"{path}.{name}", CHOICE)
    if tool.get("output_format") == "svg":
        raise unsupported(f"{path}.output_format", CHOICE)
    mask = mapping(tool.get("input_image_mask") or {}, f"{path}.input_image_mask")
    read_keys(reading, mask, {"image_url": media.picture, "file_id": elsewhere}, f"{path}.input_image_mask")
    _known_keys(tool, _IMAGE_KEYS, path)
    counts = {
        name: integer(tool[name], f"{path}.{name}", maximum=most, minimum=0)
        for name, most in _IMAGE_COUNTS.items()
        if tool.get(name) is not None
    }
    frames = counts.get("frame_count") or (MAX_FRAMES if tool.get("output_format") == "gif" else 1)
    reading.needs.append(Need(f"{path}.type", "tool=image_generation"))
    reading.made_pictures += max(counts.get("n", 1), 1) * frames
    reading.takes_turns = True


_IMAGE_COUNTS = {"n": MAX_PICTURES, "frame_count": MAX_FRAMES, "partial_images": 3}
_IMAGE_KEYS = frozenset(
    words("""
    type action background complexity frame_count frame_duration_ms input_fidelity input_image_mask model moderation n
    output_compression output_format partial_images quality size svg
    """)
)


def _refuse(reason: str) -> ToolJudge:
    def judge(reading: Reading, tool: dict[str, Any], path: str) -> None:
        raise unsupported(f"{path}.type", reason)

    return judge


CHAT_TOOLS: Mapping[str, ToolJudge] = {"function": _client, "custom": _client}
RESPONSES_TOOLS: Mapping[str, ToolJudge] = {
    **CHAT_TOOLS,
    "namespace": _namespace,
    "tool_search": _tool_search,
    "local_shell": _built_in,
    "apply_patch": _built_in,
    "computer": _built_in,
    "computer_use_preview": _built_in,
    "shell": _shell,
    "web_search": _web_search,
    "web_search_2025_08_26": _web_search,
    "web_search_preview": _web_search,
    "web_search_preview_2025_03_11": _web_search,
    "image_generation": _image_generation,
    "file_search": _refuse(ELSEWHERE),
    "mcp": _refuse(ELSEWHERE),
    "code_interpreter": _refuse(UNBOUNDED),
    "programmatic_tool_calling": _refuse(UNBOUNDED),
}


def read_tools(reading: Reading, value: Any, path: str, types: Mapping[str, ToolJudge] = RESPONSES_TOOLS) -> None:
    if value is None:
        return
    tools = objects(value, path)
    if tools:
        reading.added_tokens += TOOLS_PREAMBLE_TOKENS
    for at, tool in enumerate(tools):
        read_tool(reading, tool, f"{path}[{at}]", types)


def read_tool(reading: Reading, value: Any, path: str, types: Mapping[str, ToolJudge]) -> None:
    tool = mapping(value, path)
    kind = tool.get("type")
    judge = types.get(kind) if isinstance(kind, str) else None
    if judge is None:
        raise unsupported(f"{path}.type", UNSORTED)
    judge(reading, tool, path)


def chat_tools(reading: Reading, value: Any, name: str) -> None:
    read_tools(reading, value, name, CHAT_TOOLS)


def chat_search(reading: Reading, value: Any, name: str) -> None:
    """Search of chat has no field for the number of searches, so the default of other tools is held."""
    if value is None:
        del reading.fields[name]
        return
    read_keys(reading, mapping(value, name), {}, name)
    reading.needs.append(Need(name, "per_search"))
    reading.searches = DEFAULT_TOOL_CALLS
    reading.context_reads = DEFAULT_TOOL_CALLS + 1


def tool_calls(reading: Reading, value: Any, name: str) -> None:
    if value is None:
        del reading.fields[name]
    else:
        reading.asked_tool_calls = integer(value, name, maximum=10**9)


def bound_tool_calls(reading: Reading) -> None:
    """Write the cap of hosted tools' calls and hold what so many calls cost. The input is read again after each."""
    if not reading.takes_turns:
        return
    calls = min(reading.asked_tool_calls or DEFAULT_TOOL_CALLS, MAX_TOOL_CALLS)
    reading.fields["max_tool_calls"] = calls
    reading.context_reads = calls + 1
    reading.made_pictures *= calls
    reading.searches = calls if reading.has_searches else 0
