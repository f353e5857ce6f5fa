"""Text from outside made inert: what a terminal would obey is shown, not obeyed.

Invariant: `inert(text)` holds printable characters and spaces only, so no name, remote message
or path can move the cursor, colour the screen, reverse the line or forge a second one.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BYTE_ESCAPE_FIRST, _BYTE_ESCAPE_LAST = 0xDC80, 0xDCFF  # PEP 383: surrogateescape


def inert(text: str) -> str:
    """Control, format (bidi, zero-width) and unassigned characters as `\\x1b`, `\\u202e`; bytes
    that were not UTF-8 (surrogateescape) as `\\xff`. Other text is returned as it is."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def inert_name(name: bytes) -> str:
    """A file name, which is bytes and perhaps not text at all."""
    return inert(name.decode("utf-8", "surrogateescape"))


def _escape(char: str) -> str:
    code = ord(char)
    if _BYTE_ESCAPE_FIRST <= code <= _BYTE_ESCAPE_LAST:
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(char) or char.encode("unicode_escape", "surrogatepass").decode("ascii")
