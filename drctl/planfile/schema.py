"""JSON Schema (2020-12) of the plan and of a policy, for editors and validators.

Invariant: it is generated from the very models that validate, so it cannot tell another story.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drctl.planfile.models import PolicyModel, plan_model

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema(source_options: Mapping[str, type], storage_options: Mapping[str, type]) -> dict[str, Any]:
    """The schema of drctl.yaml, with every kind of source and storage that is handed in."""
    schema = plan_model(source_options, storage_options).model_json_schema(mode="validation")
    schema["properties"]["include"] = {
        "title": "Include",
        "description": "Files or patterns below the plan's folder, relative to this file, merged into it.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    return _titled(schema, "drctl plan")


def policy_schema() -> dict[str, Any]:
    """The schema of policies/NAME.yaml."""
    return _titled(PolicyModel.model_json_schema(mode="validation"), "drctl policy")


def _titled(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, **_without_nulls(schema), "title": title}


def _without_nulls(value: Any) -> Any:
    """A key is left out rather than given as null: YAML's nulls are refused when a plan is read."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {
        key: _without_nulls(inner) for key, inner in value.items() if not (key == "default" and inner is None)
    }
    choices = changed.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        left = [choice for choice in choices if choice != {"type": "null"}]
        del changed["anyOf"]
        return {**left[0], **changed} if len(left) == 1 else {**changed, "anyOf": left}
    return changed
