"""A string that does not show itself.

Invariant: a secret's text never appears through repr, str, format, pickle-free logging or an
exception message; only `reveal()` gives it, at the place where it is used.
"""

from __future__ import annotations


class Secret:
    """Wraps a secret text; compare and show it safely."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it only where the secret is used, never to keep or print it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))
