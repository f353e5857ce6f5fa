"""Adapters' own frozen `Options` dataclasses as strict blocks of the plan file.

Invariant: `planfile` knows no adapter: kinds and option types are handed in, and every option is
checked here as strictly as the plan itself, nested ones too.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field, create_model

from drctl.domain.plan import SecretReference
from drctl.domain.secret import Secret as SecretText
from drctl.errors import UsageError
from drctl.planfile import fields
from drctl.planfile.fields import Edge, refusal

_SPELLED: dict[Any, Any] = {SecretReference: fields.Secret, timedelta: fields.Duration}


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A checked block: its kind, the host it names if any, and the adapter's options."""

    kind: str
    host: str | None
    options: object


def block_type(option_types: Mapping[str, type], *, with_host: bool) -> Any:
    """The type of a `kind: ...` block, one variant per kind, chosen by `kind`."""
    variants = [
        _variant(kind, options, with_host=with_host) for kind, options in sorted(option_types.items())
    ]
    if not variants:
        raise ValueError("no kinds were handed in")
    if len(variants) == 1:
        return variants[0]
    return Annotated[Union[tuple(variants)], Field(discriminator="kind")]  # noqa: UP007 - built at run time


def _variant(kind: str, options: type, *, with_host: bool) -> Any:
    extra: dict[str, Any] = {"kind": (Literal[kind], Field(description=_summary(options)))}
    if with_host:
        what = "The host it lies on; may be left out when exactly one host has no address (this machine)."
        extra["host"] = (fields.Name | None, Field(None, description=what))
    named = "".join(part.capitalize() for part in kind.replace("-", "_").split("_"))
    model = _model(f"{named}{'Source' if with_host else 'Storage'}", options, extra)

    def block(value: Any) -> Block:
        return Block(kind, getattr(value, "host", None) if with_host else None, _built(options, value))

    return Annotated[model, AfterValidator(block)]


def _model(name: str, options: type, extra: Mapping[str, Any]) -> type[Edge]:
    hints = get_type_hints(options, include_extras=True)
    definitions = dict(extra)
    for field in dataclasses.fields(options):
        definitions[field.name] = (_edge_type(hints[field.name], field.metadata), _default(field))
    return create_model(name, __base__=Edge, __doc__=_summary(options), **definitions)


def _default(field: dataclasses.Field[Any]) -> Any:
    description = field.metadata.get("description")
    if field.default is not dataclasses.MISSING:
        return Field(field.default, description=description)
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory, description=description)
    return Field(..., description=description)


def _edge_type(hint: Any, metadata: Mapping[str, Any] = types.MappingProxyType({})) -> Any:
    """The type as a plan spells it: durations and sizes with units, secrets as places."""
    if hint is SecretText:
        raise TypeError("options hold a SecretReference, never a secret")
    if hint is int and metadata.get("unit") == "size":
        return fields.Size
    if hint in _SPELLED:
        return _SPELLED[hint]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return Annotated[_model(hint.__name__, hint, {}), AfterValidator(_builder(hint))]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_edge_type(arguments[0], metadata), *arguments[1:])]
    inner = tuple(argument if argument is ... else _edge_type(argument, metadata) for argument in arguments)
    return Union[inner] if origin in (Union, types.UnionType) else origin[inner]  # noqa: UP007


def _builder(options: type) -> Callable[[Any], object]:
    return lambda value: _built(options, value)


def _built(options: type, value: Any) -> object:
    try:
        return options(**{field.name: getattr(value, field.name) for field in dataclasses.fields(options)})
    except UsageError as exc:
        raise refusal(exc.message, exc.hint) from exc
    except ValueError as exc:  # an Options' own __post_init__
        raise refusal(str(exc)) from exc


def _summary(options: type) -> str:
    return " ".join((options.__doc__ or options.__name__).split("\n\n")[0].split())
