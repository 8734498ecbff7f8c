"""A person as the floors above `accounts` see one, so that rules and the trail need not import it."""

from __future__ import annotations

from typing import Any, Protocol

from tenants.models import Space


class Person(Protocol):
    """A user: an operator, or the member of one space."""

    @property
    def pk(self) -> Any: ...

    @property
    def space_id(self) -> int | None: ...

    @property
    def space(self) -> Space | None: ...

    @property
    def role(self) -> str: ...

    @property
    def is_operator(self) -> bool: ...

    @property
    def is_manager(self) -> bool: ...

    @property
    def is_admin(self) -> bool: ...

    def get_username(self) -> str: ...
