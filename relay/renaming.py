"""What of an answer must not reach a member: the upstream's own name of a model, and its account in an error."""

from __future__ import annotations

import json
from collections.abc import Callable

from relay.targets import Target


def renamer(target: Target, public_name: str) -> Callable[[bytes], bytes] | None:
    """Puts the public name for the upstream's where an answer names its model; None where both are the same."""
    there = target.model_name(public_name)
    if there == public_name:
        return None
    pairs = [
        (f'"model":{space}{json.dumps(there)}'.encode(), f'"model":{space}{json.dumps(public_name)}'.encode())
        for space in ("", " ")
    ]

    def rename(answer: bytes) -> bytes:
        for before, after in pairs:
            answer = answer.replace(before, after)
        return answer

    return rename


def masked_event(target: Target, public_name: str, event: bytes) -> bytes:
    """An event that tells an error, without what it says about the operator's account."""
    text = event.decode(errors="replace")
    return target.mask(public_name).apply(text).encode()
