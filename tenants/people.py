"""The attributes of a user that policies and the audit trail need, as a protocol.

`tenants` and `audit` cannot import accounts.models.User, because `accounts` imports them.
"""

from __future__ import annotations

from typing import Any, Protocol

from tenants.models import Space


class Person(Protocol):
    @property
    def pk(self) -> Any: ...

    @property
    def space_id(self) -> int | None: ...

    @property
    def space(self) -> Space | None: ...

    @property
    def role(self) -> str: ...

    def get_username(self) -> str: ...
