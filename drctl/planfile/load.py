"""YAML text -> positioned nodes, strictly: what could be read in two ways is an error.

Invariant: time and memory are bounded by the text (1 MiB): no anchors, aliases or tags at all (what
repeats belongs in a policy or an include), one document, nesting of at most 50.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace

import yaml

from drctl.errors import UsageError
from drctl.planfile.errors import Position, Problems, quoted
from drctl.planfile.interpolate import interpolate
from drctl.planfile.nodes import Items, Node, Scalar, Table
from drctl.planfile.scalars import read_word, surprise

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
# controls, and what some readers take for a line break and others do not: line numbers would differ
_UNSEEN = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
# libyaml's parser is bounded in stack and 10 times faster; the other one is the same language
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Stop(Exception):
    """The rest of the file cannot be read; the problem is already noted."""


def read_file(path: str, problems: Problems) -> bytes | None:
    """The bytes of a regular file, at most one over the limit; None when a problem was noted."""
    problems.add_file(path)
    try:
        # a FIFO or a device would hang the reader
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        reason = exc.strerror.lower() if isinstance(exc, OSError) and exc.strerror else "not a file name"
        problems.add(Position(path), f"cannot read the file: {reason}", "is the path right?")
        return None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        problems.add(Position(path), "not a regular file")
    except OSError as exc:
        problems.add(Position(path), f"cannot read the file: {(exc.strerror or 'error').lower()}")
    finally:
        os.close(descriptor)
    return None


def load(data: bytes, file: str, environment: Mapping[str, str], problems: Problems) -> Table | None:
    """The top mapping of one YAML document, its values interpolated; what is wrong goes to
    `problems`. None when there is nothing to go on with."""
    problems.add_file(file)
    text = _decode(data, file, problems)
    if text is None:
        return None
    try:
        root = _Composer(file, environment, problems).document(text)
    except _Stop:
        return None
    if isinstance(root, Table):
        return root
    if root is not None and not (isinstance(root, Scalar) and root.empty):
        problems.add(
            root.at, "the file must be a mapping", "start with a line such as 'organisation: Example AB'"
        )
    else:
        problems.add(Position(file), "the file is empty", "drctl init writes one to start from")
    return None


def _decode(data: bytes, file: str, problems: Problems) -> str | None:
    if len(data) > MAX_BYTES:
        problems.add(Position(file), "the file is larger than 1 MiB", "split it with include:")
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8")
        problems.add(_position_after(file, before), "not UTF-8 text", "save the file as UTF-8")
        return None
    text = text.removeprefix("\ufeff")
    found = _UNSEEN.search(text)
    if found is not None:
        at = _position_after(file, text[: found.start()])
        if found[0] == "\t":
            problems.add(at, "a tab", "indent with spaces; in a quoted text write \\t")
        else:
            problems.add(at, f"an invisible character {found[0]!a}", "remove it; in a quoted text escape it")
        return None
    return text


def _position_after(file: str, before: str) -> Position:
    line = before.count("\n") + 1
    return Position(file, line, len(before) - (before.rfind("\n") + 1) + 1)


class _Composer:
    """Builds nodes out of parser events, so that depth is checked before anything is built."""

    def __init__(self, file: str, environment: Mapping[str, str], problems: Problems) -> None:
        self._file = file
        self._environment = environment
        self._problems = problems

    def document(self, text: str) -> Node | None:
        root: Node | None = None
        events = self._events(text)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._stop(event, "a second document", "one file holds one document; use include:")
                if event.version or event.tags:
                    self._note(self._at(event), "a YAML directive", "remove the line")
                root = self._node(next(events), events, 1)
        return root

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            at = Position(self._file, mark.line + 1, mark.column + 1) if mark else Position(self._file)
            reason = exc.problem or exc.context or "not YAML"
            line = text.split("\n")[at.line - 1 : at.line]
            self._note(at, f"not YAML: {reason}", _syntax_hint(reason, "".join(line)))
            raise _Stop from exc
        except yaml.reader.ReaderError as exc:
            before = text[: exc.position] if isinstance(exc.position, int) else ""
            self._note(_position_after(self._file, before), "a character that YAML does not allow")
            raise _Stop from exc

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH}", "a plan needs no more than ten levels")
        if isinstance(event, yaml.AliasEvent):
            self._note(
                self._at(event),
                f"an alias {quoted('*' + str(event.anchor))}",
                "quote a text that begins with '*'; aliases are not allowed: use a policy or include:",
            )
            return Scalar("", "", self._at(event))
        self._refuse_decoration(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(self._node(inner, events, depth + 1))
            return Items(tuple(items), self._at(event))
        return self._table(event, events, depth)

    def _table(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Table:
        entries: dict[str, tuple[Position, Node]] = {}
        while not isinstance(inner := next(events), yaml.MappingEndEvent):
            at = self._at(inner)
            key = self._key(inner, events, depth)
            value = self._node(next(events), events, depth + 1)
            if isinstance(value, Scalar) and value.empty:
                value = replace(value, at=at)  # the parser places nothing at the next word
            if key is None:
                continue
            if key in entries:
                first = entries[key][0]
                self._note(
                    at, f"duplicate key {quoted(key)}", f"first at line {first.line}; keep one of them"
                )
            else:
                entries[key] = (at, value)
        return Table(entries, self._at(event))

    def _key(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            self._note(
                self._at(event), "a key that is not a word", "quote the text if '{', '[' or '*' is part of it"
            )
            self._node(event, events, depth + 1)
            return None
        self._refuse_decoration(event)
        word = event.value
        if _unquoted(event) and word == "<<":
            self._note(
                self._at(event), "a merge key '<<'", "merges are not allowed: use a policy or include:"
            )
            return None
        if _unquoted(event):
            self._refuse_surprise(word, self._at(event), key=True)
        return str(word)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        at, text = self._at(event), str(event.value)
        if _unquoted(event) and not text:
            return Scalar("", "", at, empty=True)
        if "${" in text:
            return self._interpolated(text, at, unquoted=_unquoted(event))
        if not _unquoted(event):
            return Scalar(text, text, at)
        self._refuse_surprise(text, at)
        return Scalar(read_word(text), text, at)

    def _interpolated(self, text: str, at: Position, *, unquoted: bool) -> Scalar:
        try:
            value = interpolate(text, self._environment)
        except UsageError as exc:
            self._note(at, exc.message, exc.hint)
            return Scalar("", text, at, interpolated=True)
        return Scalar(read_word(value) if unquoted else value, text, at, interpolated=True)

    def _refuse_decoration(self, event: yaml.Event) -> None:
        if tag := getattr(event, "tag", None):
            self._note(
                self._at(event),
                f"a tag {quoted(str(tag))}",
                "tags are not allowed; quote a text that begins with '!'",
            )
        if anchor := getattr(event, "anchor", None):
            self._note(
                self._at(event),
                f"an anchor {quoted('&' + str(anchor))}",
                "anchors are not allowed: use a policy or include:; quote a text that begins with '&'",
            )

    def _refuse_surprise(self, word: str, at: Position, *, key: bool = False) -> None:
        reading = surprise(word)
        if key and word in ("true", "false"):
            reading = "yes or no"
        if reading is not None:
            self._note(
                at,
                f"unquoted {printable_word(word)} would be read as {reading}",
                f'write "{printable_word(word)}"',
            )

    def _at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        assert mark is not None, "only hand-made events lack marks"
        return Position(self._file, mark.line + 1, mark.column + 1)

    def _note(self, at: Position, message: str, hint: str | None = None) -> None:
        self._problems.add(at, message, hint)

    def _stop(self, event: yaml.Event, message: str, hint: str) -> None:
        self._note(self._at(event), message, hint)
        raise _Stop


def _unquoted(event: yaml.ScalarEvent) -> bool:
    return (
        not event.style
    )  # controls, and what some readers take for a line break and others do not: line numbers would differ


_UNSEEN = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
# libyaml's parser says '', the other one None


def printable_word(word: str) -> str:
    """The word bare, for a message that quotes in its own way."""
    return quoted(word)[1:-1]


def _syntax_hint(reason: str, line: str) -> str:
    if "${" in line and ("'}'" in reason or "flow" in reason):
        return "inside { } a value with ${NAME} needs quotes, or a line of its own"
    if "alias" in reason or "anchor" in reason:
        return "quote a text that begins with '*' or '&'"
    if "cannot start any token" in reason:
        return "quote a text that begins with '@', '%' or '`'"
    if "mapping values are not allowed" in reason:
        return "is the indentation right? quote a text that holds ': '"
    return "check the indentation, the quotes and the brackets around here"
