"""Methods of a storage around another one that only call the other's."""

from collections.abc import Callable
from typing import Any


def delegated(attribute: str) -> Callable[[str], Callable[..., Any]]:
    """Gives methods by their names; each calls the method of the same name of the object in this attribute."""

    def method(name: str) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            return getattr(getattr(self, attribute), name)(*args, **kwargs)

        return call

    return method
