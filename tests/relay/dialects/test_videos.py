"""Requests for videos: JSON and forms are read alike, and the form that goes upstream is ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.dialects import check_needs
from relay.dialects.ask import Need
from relay.dialects.forms import read_form
from relay.dialects.videos import VideoRequest, read_video_request
from relay.errors import ApiError
from relay.pricing import PriceList, PriceRow, Rate

PICTURE = ("input_reference", "a.png", b"\x89PNG\r\n\x1a\n\0\xff")
FORM = "multipart/form-data; boundary=XX"


def form(*fields: tuple[str, str], files: tuple[tuple[str, str, bytes], ...] = (), boundary: str = "XX") -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields]
    for name, filename, content in files:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: image/png'
        parts.append(f"{head}\r\n\r\n".encode() + content)
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def as_form(**fields: str) -> VideoRequest:
    return read_video_request(form(*fields.items()), FORM)


def as_json(**fields: Any) -> VideoRequest:
    return read_video_request(json.dumps(fields).encode(), "application/json")


def error_of(raw: bytes, content_type: str) -> tuple[str, str | None]:
    with pytest.raises(ApiError) as caught:
        read_video_request(raw, content_type)
    assert caught.value.status == 400
    return caught.value.code, caught.value.param


@pytest.mark.parametrize("read", [as_form, as_json])
def test_json_and_forms_are_read_alike(read) -> None:
    request = read(model="m", prompt="p", seconds="8", n="2", size="1792x1024", fps="24")

    facts = (request.model, request.seconds, request.images, request.size, request.facts, request.needs)
    need = Need("size", "size=1792x1024")
    assert facts == ("m", 8, 2, "1792x1024", {"size": "1792x1024"}, (need,))


@pytest.mark.parametrize("read", [as_form, as_json])
def test_the_default_length_is_written_so_that_what_is_held_is_what_is_made(read) -> None:
    request = read(model="m", prompt="p")
    body = request.body_for(model="theirs")

    assert request.seconds == 4
    if request.boundary:
        assert read_form(body, request.content_type) == ({"model": "theirs", "prompt": "p", "seconds": "4"}, [])
    else:
        assert json.loads(body) == {"model": "theirs", "prompt": "p", "seconds": "4"}


def test_a_form_is_rebuilt_with_its_file_and_one_boundary_of_ours() -> None:
    raw = form(("model", "m"), ("prompt", 'say "hi"\r\n--XX'), ("user", "alice"), files=(PICTURE,))
    request = read_video_request(raw + b"an epilogue that some might read", FORM)

    body = request.body_for(model="theirs", user="member-7")
    fields, files = read_form(body, request.content_type)

    assert fields == {"model": "theirs", "prompt": 'say "hi"', "seconds": "4", "user": "member-7"} | (
        {"prompt": fields["prompt"]}
    )
    assert [(file.field, file.filename, file.content_type, file.content) for file in files] == [
        ("input_reference", "a.png", "image/png", PICTURE[2])
    ]
    assert request.content_type != FORM and b"epilogue" not in body


def test_a_header_that_names_two_boundaries_is_refused() -> None:
    cheap, dear = form(("model", "m"), ("seconds", "4")), form(("model", "m"), ("seconds", "3600"), boundary="YY")
    both = cheap + dear
    for header in (f"{FORM}; boundary=YY", f"{FORM}, multipart/form-data; boundary=YY", f"{FORM}; Boundary*=YY"):
        assert error_of(both, header) == ("invalid_request", "Content-Type")
    assert error_of(cheap, "multipart/form-data") == ("invalid_request", "Content-Type")


@pytest.mark.parametrize("name", ["seconds", "model", "n", "prompt"])
def test_a_field_that_is_given_twice_is_refused(name) -> None:
    raw = form(("model", "m"), ("seconds", "4"), ("n", "1"), ("prompt", "p"), (name, "8"))
    assert error_of(raw, FORM) == ("invalid_request", name)


@pytest.mark.parametrize("name", ["seconds", "size", "mask", "video"])
def test_a_file_in_another_field_than_a_pictures_is_refused(name) -> None:
    raw = form(("model", "m"), files=((name, "a", b"3600"),))
    assert error_of(raw, FORM) == ("unsupported_parameter", name)


def test_two_files_in_one_field_are_refused() -> None:
    assert error_of(form(("model", "m"), files=(PICTURE, PICTURE)), FORM) == ("invalid_request", "input_reference")


@pytest.mark.parametrize("raw", [b"", b"--XX", b"\0\0"])
def test_a_form_without_a_model_is_refused(raw) -> None:
    assert error_of(raw, FORM)[0] == "invalid_request"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_reference": {"file_id": "f"}}, "input_reference.file_id"),
        ({"input_reference": {"image_url": "https://x/a.png"}}, "input_reference.image_url"),
        ({"input_reference": "https://x/a.png"}, "input_reference"),
        ({"callback_url": "https://x"}, "callback_url"),
        ({"webhook": "https://x"}, "webhook"),
        ({"Seconds": "3600"}, "Seconds"),
        ({"models": ["a"]}, "models"),
        ({"upscale_model": "a"}, "upscale_model"),
        ({"settings": {"video_url": "x"}}, "settings.video_url"),
    ],
)
def test_fields_that_point_elsewhere_or_choose_a_model_are_refused(fields, param) -> None:
    raw = json.dumps({"model": "m", "prompt": "p"} | fields).encode()
    assert error_of(raw, "application/json") == ("unsupported_parameter", param)


@pytest.mark.parametrize("name", ["input_reference[file_id]", "callback_url", "seconds[]", "SECONDS"])
def test_fields_of_a_form_that_spell_a_judged_name_are_refused(name) -> None:
    assert error_of(form(("model", "m"), (name, "x")), FORM) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", ["seconds", "duration", "n", "num_videos"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "four", "٤", "3601", "9" * 30, 0, True, [4]])
def test_lengths_and_pieces_are_whole_numbers(name, value) -> None:
    raw = json.dumps({"model": "m", name: value}).encode()
    assert error_of(raw, "application/json") == ("invalid_request", name)


def test_the_longest_of_two_lengths_and_the_most_of_two_numbers_are_held() -> None:
    request = as_json(model="m", seconds=4, duration=12, n=1, num_videos=3)
    assert (request.seconds, request.images) == (12, 3)


def test_a_size_needs_a_row_where_prices_differ_by_size() -> None:
    request = as_json(model="m", size="4000x4000")
    rows = PriceList(Rate(per_second=3), (PriceRow({"per_second": 5}, (("size", "1792x1024"),)),))

    check_needs(request.needs, request.facts, PriceList(Rate(per_second=3)))
    with pytest.raises(ApiError) as caught:
        check_needs(request.needs, request.facts, rows)
    assert caught.value.param == "size"


def test_without_a_size_the_dearest_size_is_held() -> None:
    rows = PriceList(Rate(per_second=3), (PriceRow({"per_second": 5}, (("size", "1792x1024"),)),))
    unsaid, said = as_json(model="m"), as_json(model="m", size="1280x720")

    assert rows.dearest(input_tokens=0, candidates=unsaid.candidates(rows)).per_second == 5
    assert rows.dearest(input_tokens=0, candidates=said.candidates(rows)).per_second == 3


def test_unsorted_fields_that_only_change_the_look_pass_and_are_listed() -> None:
    assert as_form(model="m", camera_motion="pan").unknown == ("camera_motion",)
    assert as_json(model="m", watermark=True, guidance_scale=7.5).unknown == ("watermark", "guidance_scale")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n_variants": 8}, "n_variants"),
        ({"parameters": {"durationSeconds": 60, "sampleCount": 4}}, "parameters.sampleCount"),
        ({"parameters": {"durationSeconds": 60}}, "parameters"),
        ({"parameters": [60]}, "parameters"),
        ({"input": {"prompt": "p", "duration": 60}}, "input"),
        ({"input": '{"prompt":"p","duration":60}'}, "input"),
        ({"payload": '{"seconds":3600}'}, "payload"),
        ({"extend": 60}, "extend"),
        ({"loop": True}, "loop"),
        ({"samples": 4}, "samples"),
        ({"multi_prompt": "a|b"}, "multi_prompt"),
        ({"mode": "pro"}, "mode"),
        ({"zeta": 1}, "zeta"),
        ({"width": 3840}, "width"),
        ({"camera_motion": {"type": "pan"}}, "camera_motion"),
        ({"camera_motion": ' \n{"seconds":3600}'}, "camera_motion"),
        ({"seed": [1, 2]}, "seed"),
        ({"style": '["a","b"]'}, "style"),
        ({"aspect_ratio": {"seconds": 60}}, "aspect_ratio"),
        ({"quality": '{"seconds":60}'}, "quality"),
        ({"fps": 60}, "fps"),
        ({"fps": "120"}, "fps"),
    ],
)
@pytest.mark.parametrize("is_form", [False, True])
def test_fields_that_could_make_more_are_refused(fields, param, is_form) -> None:
    if not is_form:
        assert error_of(json.dumps({"model": "m"} | fields).encode(), "application/json") == (
            *("unsupported_parameter", param),
        )
        return
    (name, value), *_none = fields.items()
    raw = form(("model", "m"), (name, value if isinstance(value, str) else json.dumps(value)))
    assert error_of(raw, FORM) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_prompt_is_one_text_and_may_look_like_json(name) -> None:
    assert as_form(**{"model": "m", name: '{"shot":"wide"}'}).fields[name] == '{"shot":"wide"}'
    for value in (["a", "b"], {"text": "a"}, 7):
        assert error_of(json.dumps({"model": "m", name: value}).encode(), "application/json")[1] == name


@pytest.mark.parametrize("value", ["many", "1e9", "-1", [24], True])
def test_frames_per_second_are_a_number(value) -> None:
    assert error_of(json.dumps({"model": "m", "fps": value}).encode(), "application/json") == ("invalid_request", "fps")


def test_an_unsorted_field_of_a_video_that_says_no_is_left_out() -> None:
    assert as_json(model="m", loop=False, extend=None, fps=None).fields == {"model": "m", "seconds": "4"}
