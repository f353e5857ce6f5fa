"""`read_plan`: a path in, a consistent `Plan` or one error with every problem out.

Invariant: the environment and the kinds there are, are handed in; nothing but the plan's files and
the policies they name is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from drctl.domain.plan import Plan, Policy
from drctl.planfile.decode import decode_objectives, decode_plan, decode_policy
from drctl.planfile.errors import Problems
from drctl.planfile.fields import usable_zone
from drctl.planfile.include import load_with_includes
from drctl.planfile.lint import lint_objectives, lint_policy
from drctl.planfile.load import load, read_file
from drctl.planfile.models import PolicyModel, ServiceFields, plan_model
from drctl.planfile.nodes import Node, Scalar, Table
from drctl.planfile.references import check_references, local_host, policies_used
from drctl.planfile.shipped import find_by_name
from drctl.planfile.translate import validated

_ZONE_WHEN_THE_PLANS_IS_WRONG = "Europe/Stockholm"  # one with a 25-hour day


def read_plan(
    path: str,
    environment: Mapping[str, str],
    source_options: Mapping[str, type],
    storage_options: Mapping[str, type],
) -> Plan:
    """The plan in the file at `path`, with its includes and policies.

    `source_options` and `storage_options` give each kind's frozen Options dataclass. PlanError lists
    all that is wrong."""
    problems = Problems()
    table = load_with_includes(path, environment, problems)
    if table is None:
        raise problems.error()
    model: Any = validated(plan_model(source_options, storage_options), table, problems)
    folder = os.path.dirname(os.path.abspath(path))
    found = find_by_name("policies", folder)
    check_references(table, found, problems)
    zone = _time_zone(table)
    policies = {
        name: policy
        for name in policies_used(table)
        if name in found and (policy := read_policy(name, found[name], environment, zone, problems))
    }
    if model is not None:
        _lint_overrides(model.services, policies, table, zone, problems)
    problems.raise_if_any()
    playbooks = find_by_name("playbooks", folder)
    return decode_plan(model, os.path.abspath(path), local_host(table), policies, playbooks)


def read_policy(
    name: str, path: str, environment: Mapping[str, str], time_zone: str, problems: Problems
) -> Policy | None:
    """One policy file; None when problems were noted in it."""
    data = read_file(path, problems)
    table = load(data, path, environment, problems) if data is not None else None
    model = validated(PolicyModel, table, problems) if table is not None else None
    if table is None or model is None:
        return None
    policy = decode_policy(name, model)
    lint_policy(policy, table, time_zone, problems)
    return policy


def _time_zone(table: Table) -> str:
    written = table.get("time_zone")
    text = written.value if isinstance(written, Scalar) else None
    return text if isinstance(text, str) and usable_zone(text) else _ZONE_WHEN_THE_PLANS_IS_WRONG


def _lint_overrides(
    services: Mapping[str, ServiceFields],
    policies: Mapping[str, Policy],
    table: Table,
    time_zone: str,
    problems: Problems,
) -> None:
    for name, service in services.items():
        if service.policy in policies:
            text = _deep(table, "services", name, "objectives")
            objectives = decode_objectives(service.objectives)
            lint_objectives(objectives, text, policies[service.policy].schedule, time_zone, problems)


def _deep(node: Node | None, *keys: str) -> Node | None:
    for key in keys:
        node = node.get(key) if isinstance(node, Table) else None
    return node
