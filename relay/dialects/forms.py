"""Multipart forms: parsed once, and written anew with a boundary of our own, so that nobody can read another form."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from relay.errors import invalid


@dataclass(frozen=True, slots=True)
class FormFile:
    field: str
    filename: str
    content_type: str
    content: bytes


class _FileCollector(FileUploadHandler):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[FormFile] = []
        self._chunks: list[bytes] = []

    def new_file(self, field_name: str, file_name: str, content_type: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, file_name, content_type, *args, **kwargs)
        self._chunks = []

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._chunks.append(raw_data)

    def file_complete(self, file_size: int) -> None:
        # Django calls this for each file, also for an empty one, which it gives no chunk.
        name, kind = self.field_name or "", self.content_type or "application/octet-stream"
        self.files.append(FormFile(name, self.file_name or "file", kind, b"".join(self._chunks)))


def read_form(raw: bytes, content_type: str) -> tuple[dict[str, Any], list[FormFile]]:
    """Fields and files of a form. Raises ApiError 400 for a form that others might read differently."""
    if len(re.findall(r"boundary", content_type, re.IGNORECASE)) != 1:
        raise invalid("The form's Content-Type must name one boundary.", "Content-Type")
    collector = _FileCollector()
    meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": len(raw)}
    try:
        fields, _files = MultiPartParser(meta, BytesIO(raw), [collector], "utf-8").parse()
    except (MultiPartParserError, SuspiciousOperation):
        raise invalid("The body is not a valid multipart form.") from None
    for name, values in fields.lists():
        if len(values) > 1 or any(file.field == name for file in collector.files):
            raise invalid(f"{name} must be given once.", name)
    return dict(fields.items()), collector.files


def write_form(fields: dict[str, Any], files: list[FormFile], boundary: str) -> bytes:
    parts = [(f'form-data; name="{_quoted(name)}"', "", str(value).encode()) for name, value in fields.items()]
    for file in files:
        disposition = f'form-data; name="{_quoted(file.field)}"; filename="{_quoted(file.filename)}"'
        parts.append((disposition, f"\r\nContent-Type: {_one_line(file.content_type)}", file.content))
    mark = f"--{boundary}"
    written = [
        f"{mark}\r\nContent-Disposition: {disposition}{kind}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, kind, content in parts
    ]
    return b"".join((*written, f"{mark}--\r\n".encode()))


def new_boundary() -> str:
    # Random, so that no content can have it in it.
    return secrets.token_hex(16)


def _quoted(text: str) -> str:
    # As browsers quote these in a form.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n]", "", text)
