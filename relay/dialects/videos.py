"""POST /v1/videos: seconds × pieces × price, by size. JSON and forms are read alike, and written from what was read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay import quick_json
from relay.dialects import media
from relay.dialects.ask import Need
from relay.dialects.bodies import json_object, required_model
from relay.dialects.content import elsewhere, read_keys
from relay.dialects.fields import SHARED, Row, Table, Verdict
from relay.dialects.forms import FormFile, new_boundary, read_form, write_form
from relay.dialects.names import (
    CONTAINERS,
    ELSEWHERE,
    SPELLING,
    UNPRICED,
    UNSORTED,
    canonical,
    guard,
    reason_against,
    unsupported,
    words,
)
from relay.dialects.reading import MAX_CHOICES, Reading, text
from relay.errors import invalid
from relay.pricing import PriceList

# OpenAI's default. It is written into a body without `seconds`, so that what is held is what is made.
DEFAULT_SECONDS = 4
MAX_SECONDS = 3600
MAX_FRAMES_PER_SECOND = 30
_FILE_FIELDS = ("input_reference", "image", "first_frame", "last_frame")
_PSEUDONYMS = ("user", "safety_identifier", "user_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """`facts` choose the price row. Without a size, any of the model's sizes may be made: see `candidates`."""

    model: str
    seconds: int
    images: int
    size: str
    fields: Mapping[str, Any]
    files: tuple[FormFile, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    unknown: tuple[str, ...] = ()
    boundary: str = ""

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}" if self.boundary else "application/json"

    def body_for(self, *, model: str, user: str = "") -> bytes:
        fields = dict(self.fields) | {"model": model}
        for name in _PSEUDONYMS:
            if fields.pop(name, None) is not None and user:
                fields[name] = user
        return write_form(fields, list(self.files), self.boundary) if self.boundary else quick_json.write(fields)

    def candidates(self, prices: PriceList) -> list[Mapping[str, str]]:
        """The facts that the answer may be charged by, for PriceList.dearest."""
        rows = [dict(row.when) for row in prices.rows]
        unsaid = [when for when in rows if when.keys() <= set(MADE_FACTS) - self.facts.keys()]
        return [{}, self.facts, *({**self.facts, **when} for when in unsaid)]


def read_video_request(raw: bytes, content_type: str) -> VideoRequest:
    """Parse JSON, or the multipart form that OpenAI's clients send. Raises ApiError 400, which names the field."""
    if content_type.strip().lower().startswith("multipart/form-data"):
        fields, files = read_form(raw, content_type)
        return _read(fields, files, new_boundary())
    return _read(json_object(raw), [], "")


def _read(fields: dict[str, Any], files: list[FormFile], boundary: str) -> VideoRequest:
    model = required_model(fields)
    _check_files(files)
    reading = Reading(fields, 0)
    for name, value in fields.items():
        row = ROWS.get(name)
        if row is None:
            _unknown(reading, name, value)
        elif row.judge is not None:
            row.judge(reading, value, name)
    return VideoRequest(
        model=model,
        seconds=_length(reading, fields),
        images=max([1, *(_digits(fields, name, MAX_CHOICES) for name in _PIECES if fields.get(name) is not None)]),
        size=reading.facts.get("size", ""),
        fields=reading.fields,
        files=tuple(files),
        facts=reading.facts,
        needs=tuple(reading.needs),
        unknown=tuple(reading.unknown),
        boundary=boundary,
    )


def _length(reading: Reading, fields: dict[str, Any]) -> int:
    """The longest length that the client named. It is written under every name, since each upstream reads its own."""
    named = {name: _digits(fields, name, MAX_SECONDS) for name in _SECONDS if fields.get(name) is not None}
    seconds = max(named.values(), default=DEFAULT_SECONDS)
    for name in {"seconds", *named}:
        if named.get(name) != seconds:
            reading.fields[name] = str(seconds) if name == "seconds" else seconds
    return seconds


def _check_files(files: list[FormFile]) -> None:
    for at, file in enumerate(files):
        if file.field not in _FILE_FIELDS:
            raise unsupported(file.field, UNSORTED)
        if any(other.field == file.field for other in files[:at]):
            raise invalid(f"{file.field} must be given once.", file.field)


def _unknown(reading: Reading, name: str, value: Any) -> None:
    """Each provider has names of its own for more, longer and larger videos: only what is known to be free passes."""
    if value is None or value is False:
        del reading.fields[name]
        return
    if name in _HARMLESS:
        _scalar(reading, value, name)
        reading.unknown.append(name)
        return
    if isinstance(value, CONTAINERS):
        guard(value, name, is_unknown=True)
    # Forms write the members of an object as `input_reference[file_id]`.
    is_spelling = "[" in name or canonical(name) in _CANONICAL
    raise unsupported(name, SPELLING if is_spelling else reason_against(name) or UNSORTED)


def _scalar(reading: Reading, value: Any, name: str) -> None:
    # Forms carry structures as JSON, and some providers read it wherever it stands.
    if isinstance(value, CONTAINERS) or (isinstance(value, str) and _STRUCTURE.match(value)):
        raise unsupported(name, UNSORTED)


def _prompt(reading: Reading, value: Any, name: str) -> None:
    # A list of prompts would be a video for each.
    if value is not None:
        text(value, name)


def _frames_per_second(reading: Reading, value: Any, name: str) -> None:
    """Some providers charge more seconds for more frames; none does for as many as films have."""
    if value is None:
        del reading.fields[name]
    elif not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", str(value), re.ASCII):
        raise invalid(f"{name} must be a number.", name)
    elif float(value) > MAX_FRAMES_PER_SECOND:
        raise unsupported(name, UNPRICED)


def _digits(fields: dict[str, Any], name: str, maximum: int) -> int:
    value = fields[name]
    # OpenAI's clients send `seconds` as a string of digits.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not 1 <= value <= maximum:
        raise invalid(f"{name} must be a whole number from 1 to {maximum}.", name)
    return value


def _fact(reading: Reading, value: Any, name: str) -> None:
    """Needs a price row of this value: many providers bill by it. The size needs one only where prices differ by it."""
    if value is None:
        del reading.fields[name]
        return
    if value is False:
        return
    _scalar(reading, value, name)
    said = str(value).lower() if isinstance(value, bool) else text(value, name)
    reading.facts[name] = said
    reading.needs.append(Need(name, f"{name}={said}"))


def _input_reference(reading: Reading, value: Any, name: str) -> None:
    if isinstance(value, dict):
        read_keys(reading, value, {"file_id": elsewhere, "image_url": _inline_picture}, name)
    elif value is not None:
        _inline_picture(reading, value, name)


def _inline_picture(reading: Reading, value: Any, param: str) -> None:
    if value is not None:
        if not text(value, param).lower().startswith("data:image/"):
            raise unsupported(param, ELSEWHERE)
        media.picture(reading, value, param)


_STRUCTURE = re.compile(r"[\s\ufeff]*[\[{]")
# Unsorted fields that change what is seen, and neither how much nor how large.
_HARMLESS = frozenset(
    words("""
    camera camera_motion camera_movement camera_control camera_fixed motion motion_strength motion_bucket_id
    movement_amplitude guidance_scale cfg style_preset shot_type person_generation personGeneration watermark
    enable_safety_checker safety_tolerance prompt_optimizer enhance_prompt language tint
    """)
)
# What the provider chooses where the client does not.
MADE_FACTS = ("size", "resolution", "quality", "generate_audio")
_SECONDS = ("seconds", "duration")
_PIECES = ("n", "num_videos")
ROWS: Table = {
    **SHARED,
    **dict.fromkeys(("prompt", "negative_prompt"), Row(Verdict.PASSES, _prompt)),
    **dict.fromkeys(("aspect_ratio", "seed", "style", "cfg_scale"), Row(Verdict.PASSES, _scalar)),
    "fps": Row(Verdict.BOUND, _frames_per_second),
    **dict.fromkeys((*_SECONDS, *_PIECES), Row(Verdict.BOUND)),
    **dict.fromkeys(MADE_FACTS, Row(Verdict.PRICED, _fact)),
    **dict.fromkeys(_FILE_FIELDS, Row(Verdict.BOUND, _input_reference)),
}
_CANONICAL = frozenset(map(canonical, ROWS))
