"""pydantic's findings -> problems with a position, in drctl's words.

Invariant: every finding becomes a problem; a value that came out of the environment is shown as the
reference that stands in the file.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drctl.planfile.errors import Position, Problems, did_you_mean, quoted
from drctl.planfile.fields import Edge
from drctl.planfile.nodes import Items, Node, Scalar, Table, plain

Model = TypeVar("Model", bound=Edge)
_QUOTED = re.compile(r"'([^']*)'")
_MUST_BE = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def validated(model: type[Model], table: Table, problems: Problems) -> Model | None:
    """The table as a value of the model; None when problems were noted."""
    try:
        # JSON's strict reading is exactly what the file means: lists are lists, "1" is no number
        return model.model_validate_json(json.dumps(plain(table)))
    except ValidationError as exc:
        for finding in exc.errors(include_url=False, include_input=False):
            _note(finding, model, table, problems)
        return None


def _note(finding: ErrorDetails, model: type[BaseModel], table: Table, problems: Problems) -> None:
    kind, place = finding["type"], finding["loc"]
    key_at, value = _locate(table, place)
    if kind == "missing":
        message, hint = f"missing key {quoted(str(place[-1]))}", _described(model, place)
        problems.add(_locate(table, place[:-1])[0], message, hint, beside=str(place[-1]))
    elif kind == "extra_forbidden":
        known = _keys(_type_at(model, place[:-1]))
        problems.add(key_at, f"unknown key {quoted(str(place[-1]))}", did_you_mean(str(place[-1]), known))
    elif kind == "union_tag_not_found":
        problems.add(
            key_at, "missing key 'kind'", did_you_mean("", _kinds(_type_at(model, place))), beside="kind"
        )
    elif kind == "too_short" and _filled(value):
        return  # the entries themselves were wrong, and that was said
    elif isinstance(value, Scalar) and value.empty:
        problems.add(value.at, "has no value", "give one, or remove the line")
    else:
        message, hint = _described_value(finding, value, str(place[-1]) if place else "")
        if kind == "union_tag_invalid" and isinstance(value, Table):
            value = value.get("kind")
        at = key_at if value is None or place[-1:] == ("[key]",) else value.at
        problems.add(at, _unexpanded(message, value), hint)


def _filled(value: Node | None) -> bool:
    match value:
        case Table():
            return bool(value.entries)
        case Items():
            return bool(value.items)
        case _:
            return False


def _described_value(finding: ErrorDetails, value: Node | None, key: str) -> tuple[str, str | None]:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "plan":
        return str(context["message"]), context["hint"]
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        expected = _QUOTED.findall(str(context.get("expected") or context.get("expected_tags")))
        given = str(
            context.get("tag") or (value.value if isinstance(value, Scalar) else finding["loc"][-2:][0])
        )
        what = "kind" if kind == "union_tag_invalid" else "value"
        return f"unknown {what} {quoted(given)}", did_you_mean(given, expected)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context[name]}", None
    if kind == "string_pattern_mismatch":
        return f"not a usable {key}", None
    if kind in _MUST_BE:
        return _MUST_BE[kind], _typing_hint(kind, value)
    return finding["msg"][:1].lower() + finding["msg"][1:], None


def _typing_hint(kind: str, value: Node | None) -> str | None:
    if kind == "string_type" and isinstance(value, Scalar):
        return f'quote it: "{quoted(value.text)[1:-1]}"'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, Scalar):
        if value.interpolated:
            return "remove the quotes, and write it on a line of its own"
        return "remove the quotes" if re.fullmatch(r"[0-9.]+|true|false", str(value.value)) else None
    if kind in ("tuple_type", "list_type"):
        return "write [a, b], or lines that begin with '- '"
    return None


def _unexpanded(message: str, value: Node | None) -> str:
    for scalar in _interpolated(value):
        given = str(scalar.value)
        for shown in (given, quoted(given)[1:-1], repr(given)[1:-1]):
            message = message.replace(shown, quoted(scalar.text)[1:-1])
    return message


def _interpolated(node: Node | None) -> Iterator[Scalar]:
    match node:
        case Scalar() if node.interpolated and str(node.value):
            yield node
        case Items():
            for item in node.items:
                yield from _interpolated(item)
        case Table():
            for _, value in node.entries.values():
                yield from _interpolated(value)


def _locate(table: Table, place: Sequence[int | str]) -> tuple[Position, Node | None]:
    """The position of the last key or item on the way, and the value there (None: it is absent)."""
    at, node, tagged = table.at, table, False
    current: Node | None = node
    for part in place:
        if isinstance(current, Table):
            kind = current.get("kind")
            if not tagged and isinstance(kind, Scalar) and kind.value == part:
                tagged = True  # pydantic names the chosen variant in between
                continue
            tagged = False
            if part != "[key]" and part not in current.entries:
                return at, None
            if part != "[key]":
                at, current = current.entries[str(part)]
        elif isinstance(current, Items) and isinstance(part, int) and part < len(current.items):
            current = current.items[part]
            at = current.at
    return at, current


def _described(model: type[BaseModel], place: Sequence[int | str]) -> str | None:
    parent = _type_at(model, place[:-1])
    if isinstance(parent, type) and issubclass(parent, BaseModel):
        return parent.model_fields[str(place[-1])].description
    return None


def _bare(hint: Any) -> Any:
    """The type without annotations and without `None`."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        left = [choice for choice in get_args(hint) if choice is not type(None)]
        if len(left) == 1:
            return _bare(left[0])
    return hint


def _type_at(model: Any, place: Sequence[int | str]) -> Any:
    hint = _bare(model)
    for part in place:
        if get_origin(hint) in (Union, types.UnionType):
            hint = next((_bare(c) for c in get_args(hint) if part in _kinds(c)), None)
        elif isinstance(hint, type) and issubclass(hint, BaseModel):
            field = hint.model_fields.get(str(part))
            hint = _bare(field.annotation) if field else None
        else:
            arguments = get_args(hint)
            hint = _bare(arguments[-1] if get_origin(hint) is dict else arguments[0]) if arguments else None
    return hint


def _kinds(hint: Any) -> list[str]:
    bare = _bare(hint)
    if get_origin(bare) in (Union, types.UnionType):
        return [kind for choice in get_args(bare) for kind in _kinds(choice)]
    if isinstance(bare, type) and issubclass(bare, BaseModel) and "kind" in bare.model_fields:
        annotation = bare.model_fields["kind"].annotation
        return [str(kind) for kind in get_args(annotation)] if get_origin(annotation) is Literal else []
    return []


def _keys(hint: Any) -> list[str]:
    return list(hint.model_fields) if isinstance(hint, type) and issubclass(hint, BaseModel) else []
