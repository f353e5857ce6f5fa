"""The JSON Schema accepts what `read_plan` accepts, and an editor can complete with it."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from drctl.planfile.schema import plan_schema, policy_schema
from drctl.planfile.shipped import find_by_name
from drctl.planfile.template import Start, render_plan
from tests.unit.planfile.plans import GOOD, SOURCES, STORAGES

PLAN = plan_schema(SOURCES, STORAGES)
START = Start(
    "web1.example.net", "Europe/Stockholm", ("/usr/share/doc",), "/var/lib/drctl/repository", "/etc/k"
)


def valid(schema: dict[str, Any], document: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(document))


def test_both_schemas_are_valid_json_schema_2020_12() -> None:
    for schema in (PLAN, policy_schema()):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("text", [GOOD, render_plan(START), "include: [a.yaml]\n" + GOOD])
def test_a_good_plan_is_valid(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), PLAN, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", ["nightly-30d", "incremental-90d", "standby-31d"])
def test_the_shipped_policies_are_valid(name: str) -> None:
    document = yaml.safe_load(Path(find_by_name("policies", "/nonexistent")[name]).read_text())
    jsonschema.validate(document, policy_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("good", "bad"),
    [("organisation:", "organization:"), ("kind: local", "kind: lokal"), ("path: /var", "pth: /var"), ("[main]", "main"),
     ("{file: /etc/drctl/main.key}", "hunter2"), ("{site: here}", "{site: here, address: null}"), ("[main]", "[]"),
     ("kind: files", "kind: local"), ("paths: [/usr/share/doc]", "paths: 1")],
)  # fmt: skip
def test_a_wrong_plan_is_invalid(good: str, bad: str) -> None:
    assert good in GOOD
    assert not valid(PLAN, yaml.safe_load(GOOD.replace(good, bad)))


def test_every_kind_is_enumerated_with_its_options_and_their_descriptions() -> None:
    definitions = PLAN["$defs"]
    source = definitions["Service"]["properties"]["sources"]["additionalProperties"]
    assert source["discriminator"]["mapping"] == {
        "command": "#/$defs/CommandSource",
        "files": "#/$defs/FilesSource",
    }
    assert len(source["oneOf"]) == 2
    assert definitions["FilesSource"]["properties"]["paths"]["description"] == "What is backed up."
    assert definitions["S3Storage"]["properties"]["kind"]["const"] == "s3"


def keys_without_description(schema: dict[str, Any]) -> list[str]:
    return [
        f"{name}.{key}"
        for name, definition in {"Plan": schema, **schema["$defs"]}.items()
        for key, part in definition.get("properties", {}).items()
        if not any(
            "description" in where for where in (part, schema["$defs"].get(part.get("$ref", "")[8:], {}))
        )
        and key not in {"name", "email", "description", "region", "port", "user", "exclude", "contacts"}
    ]


def test_keys_are_described_so_that_an_editor_can_tell_what_they_mean() -> None:
    own = {"FilesSource", "CommandSource", "LocalStorage", "S3Storage", "SftpStorage", "Lock"}
    assert [key for key in keys_without_description(PLAN) if key.split(".")[0] not in own] == []
    assert keys_without_description(policy_schema()) == []
