from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from core.vault import decrypt, encrypt, rotate

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture(autouse=True)
def old_key(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = [OLD]


@pytest.mark.parametrize("clear", ["sk-abc", "x" * 4000, "ключ"])
def test_a_credential_comes_back_and_cannot_be_seen_in_what_is_kept(clear: str) -> None:
    sealed = encrypt(clear)

    assert decrypt(sealed) == clear
    assert clear not in sealed and encrypt(clear) != sealed


def test_a_new_key_in_front_reads_what_the_old_one_wrote(settings: Any) -> None:
    sealed = encrypt("sk-abc")
    settings.CREDENTIAL_KEYS = [NEW, OLD]

    rotated = rotate(sealed)

    assert decrypt(sealed) == decrypt(rotated) == "sk-abc"
    settings.CREDENTIAL_KEYS = [NEW]
    assert decrypt(rotated) == "sk-abc"


@pytest.mark.parametrize("open_it", [decrypt, rotate])
def test_without_the_right_key_nothing_opens_and_the_words_hold_no_secret(settings: Any, open_it: Any) -> None:
    sealed = encrypt("sk-abc")
    settings.CREDENTIAL_KEYS = [OTHER]

    with pytest.raises(ImproperlyConfigured, match="none of them opens this credential") as error:
        open_it(sealed)

    assert OTHER not in str(error.value) and sealed not in str(error.value)


def test_without_any_key_it_says_how_to_make_one(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    with pytest.raises(ImproperlyConfigured, match=r"CREDENTIAL_KEYS is not set.*generate_key"):
        encrypt("sk-abc")


@pytest.mark.parametrize("key", ["short", "", "x" * 44, "ключ"])
def test_a_key_that_is_none_is_refused_and_not_quoted(settings: Any, key: str) -> None:
    settings.CREDENTIAL_KEYS = [NEW, key]

    with pytest.raises(ImproperlyConfigured, match="not 32 bytes") as error:
        encrypt("sk-abc")

    assert NEW not in str(error.value)


@pytest.mark.parametrize("sealed", ["", "junk", "gAAAAA"])
def test_what_was_never_sealed_does_not_open(sealed: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        decrypt(sealed)
