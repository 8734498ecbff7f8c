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
def test_a_secret_is_decrypted_to_itself_and_not_visible_in_the_encrypted_text(clear: str) -> None:
    sealed = encrypt(clear)

    assert decrypt(sealed) == clear
    assert clear not in sealed and encrypt(clear) != sealed


def test_with_a_new_key_in_front_old_secrets_are_decrypted_and_rotated(settings: Any) -> None:
    sealed = encrypt("sk-abc")
    settings.CREDENTIAL_KEYS = [NEW, OLD]

    rotated = rotate(sealed)

    assert decrypt(sealed) == decrypt(rotated) == "sk-abc"
    settings.CREDENTIAL_KEYS = [NEW]
    assert decrypt(rotated) == "sk-abc"


@pytest.mark.parametrize("read", [decrypt, rotate])
def test_without_the_right_key_nothing_is_decrypted_and_the_error_holds_no_secret(settings: Any, read: Any) -> None:
    sealed = encrypt("sk-abc")
    settings.CREDENTIAL_KEYS = [OTHER]

    with pytest.raises(ImproperlyConfigured, match="none of them opens this credential") as error:
        read(sealed)

    assert OTHER not in str(error.value) and sealed not in str(error.value)


def test_without_any_key_the_error_says_how_to_generate_one(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    with pytest.raises(ImproperlyConfigured, match=r"CREDENTIAL_KEYS is not set.*generate_key"):
        encrypt("sk-abc")


@pytest.mark.parametrize("key", ["short", "", "x" * 44, "ключ"])
def test_an_invalid_key_is_refused_and_not_quoted_in_the_error(settings: Any, key: str) -> None:
    settings.CREDENTIAL_KEYS = [NEW, key]

    with pytest.raises(ImproperlyConfigured, match="not 32 bytes") as error:
        encrypt("sk-abc")

    assert NEW not in str(error.value)


@pytest.mark.parametrize("sealed", ["", "junk", "gAAAAA"])
def test_text_that_was_never_encrypted_is_not_decrypted(sealed: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        decrypt(sealed)
