"""What a provider reads of a prompt: text at one token a byte, pictures, sound, tools, and content kept elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

# OpenAI's tiles: a picture scaled to 2,048 × 768 has 8 tiles of 170 tokens, and 85 for the whole.
PICTURE_TOKENS = 85 + 170 * 8
SOUND_TOKENS_PER_S = 10
# The lowest bit rate of MP3, 8 kbit/s.
SOUND_BYTES_PER_S = 1_000
MESSAGE_TOKENS = 4

# Names of ids and addresses of content whose size the request does not show. Each can fill the context window.
POINTERS = {
    *("file_id", "file_ids", "file_url", "vector_store_ids", "connector_id", "server_url", "tunnel_id"),
    *("video_url", "audio_url", "input_video", "video", "document_url", "cached_content", "cachedContent"),
    *("previous_response_id", "conversation", "comparison_response_id", "previous_message_id", "continuation_id"),
}
# Documents are compressed: a few kilobytes can be a thousand pages.
DOCUMENTS = {"file_data"}
PICTURES = {"image_url", "image"}
SOUNDS = {"input_audio", "audio"}
POINTER_TYPES = {"item_reference", "compaction", "container_upload"}
# Tools that the client runs. All others are run by the provider, which reads the prompt again after each call.
CLIENT_TOOLS = {
    *("function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"),
    *("computer-preview", "namespace"),
}


@dataclass
class Contents:
    text: int = 0
    pictures: int = 0
    sound_s: int = 0
    # How often the whole context window is filled.
    windows: int = 0
    hosted: list[str] = field(default_factory=list)
    has_tools: bool = False

    def add_text(self, value: Any) -> None:
        """All strings and names below `value`, as a prompt shows them to a model."""
        if isinstance(value, str):
            self.text += size_of(value)
        elif isinstance(value, list):
            for inner in value:
                self.add_text(inner)
        elif isinstance(value, dict):
            for name, inner in value.items():
                self.text += size_of(name)
                self.add_text(inner)

    def add(self, value: Any) -> None:
        """Messages, items, or their content."""
        if isinstance(value, str):
            self.text += size_of(value)
        elif isinstance(value, list):
            for inner in value:
                self.add(inner)
        elif isinstance(value, dict):
            self._add_part(value)

    def _add_part(self, part: dict[str, Any]) -> None:
        if "role" in part:
            self.text += MESSAGE_TOKENS
        is_reference = part.get("id") and not any(part.get(name) for name in ("type", "role", "content"))
        if is_reference or part.get("type") in POINTER_TYPES:
            self.windows += 1
        if part.get("type") == "image_generation_call" and not part.get("result"):
            self.windows += 1
        for name, value in part.items():
            if value not in (None, "", [], {}):
                self._add_member(name, value)

    def _add_member(self, name: str, value: Any) -> None:
        if name in POINTERS or name in DOCUMENTS:
            self.windows += 1
        elif name in PICTURES:
            self._add_picture(value)
        elif name in SOUNDS:
            self._add_sound(value)
        elif name == "tools":
            self.add_tools(value)
        elif name in ("tool_calls", "function_call", "function"):
            self.add_text(value)
        else:
            self.add(value)

    def _add_picture(self, value: Any) -> None:
        if isinstance(value, dict) and value.get("file_id"):
            self.windows += 1
            return
        address = value.get("url") if isinstance(value, dict) else value
        if isinstance(address, str) and not address.startswith(("http://", "https://", "data:image/")):
            # Nothing that could be a picture: it is passed to the model as it stands.
            self.text += size_of(address)
        else:
            self.pictures += 1

    def _add_sound(self, value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            self.sound_s += math.ceil(len(value["data"]) * 3 / 4 / SOUND_BYTES_PER_S)
        else:
            self.windows += 1

    def add_tools(self, tools: Any) -> None:
        for tool in tools if isinstance(tools, list) else []:
            self.has_tools = True
            self.add_text(tool)
            if not isinstance(tool, dict):
                continue
            kind = tool.get("type", "function")
            if is_hosted(tool):
                self.hosted.append(str(kind))
            elif kind == "namespace":
                self.add_tools(tool.get("tools"))


def is_hosted(tool: dict[str, Any]) -> bool:
    kind = tool.get("type", "function")
    environment = tool.get("environment")
    if kind == "shell":
        return isinstance(environment, dict) and environment.get("type") not in ("local", None)
    if kind == "tool_search":
        return bool(tool.get("execution") != "client")
    return kind not in CLIENT_TOOLS


def size_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
