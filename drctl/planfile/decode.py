"""Validated files -> the frozen values of `domain.plan`; pure.

Invariant: only spelling changes here; whatever can be wrong was reported before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drctl.domain.plan import (
    Contact,
    DisasterClass,
    Host,
    Objective,
    Plan,
    Policy,
    RepositorySpec,
    RestoreTestRules,
    Retention,
    Schedule,
    Service,
    Site,
    SourceSpec,
    StorageSpec,
)
from drctl.planfile.fields import Edge
from drctl.planfile.models import ContactModel, ObjectiveModel, PolicyModel
from drctl.planfile.options import Block


def decode_policy(name: str, model: PolicyModel) -> Policy:
    """The policy of that name."""
    tests = model.restore_test
    return Policy(
        name=name,
        schedule=Schedule(**_values(model.schedule)),
        retention=Retention(**_values(model.retention)),
        objectives=decode_objectives(model.objectives),
        restore_test=RestoreTestRules(**_values(tests)) if tests else None,
        description=model.description,
    )


def decode_objectives(models: Mapping[DisasterClass, ObjectiveModel]) -> dict[DisasterClass, Objective]:
    """Objectives by disaster class, in the file's order."""
    return {disaster_class: Objective(**_values(model)) for disaster_class, model in models.items()}


def decode_plan(
    model: Any,
    file: str,
    local_host: str | None,
    policies: Mapping[str, Policy],
    playbooks: Mapping[str, str],
) -> Plan:
    """The whole plan. `model` is of the type `models.plan_model` made."""
    return Plan(
        file=file,
        organisation=model.organisation,
        time_zone=model.time_zone,
        sites={name: Site(name=name, **_values(site)) for name, site in model.sites.items()},
        hosts={name: Host(name=name, **_values(host)) for name, host in model.hosts.items()},
        repositories={name: _repository(name, spec) for name, spec in model.repositories.items()},
        services={name: _service(name, service, local_host) for name, service in model.services.items()},
        policies=policies,
        calendar=model.calendar,
        contacts=_contacts(model.contacts),
        playbooks=playbooks,
    )


def _repository(name: str, model: Any) -> RepositorySpec:
    storage: Block = model.storage
    return RepositorySpec(
        name=name,
        site=model.site,
        storage=StorageSpec(storage.kind, storage.options),
        key=model.key,
        chunker=model.chunker,
        compression=model.compression,
        append_only=model.append_only,
        upload_limit_bytes_s=model.upload_limit,
        download_limit_bytes_s=model.download_limit,
        connections=model.connections,
        retry_for=model.retry_for,
    )


def _service(name: str, model: Any, local_host: str | None) -> Service:
    return Service(
        name=name,
        policy=model.policy,
        sources={key: _source(key, block, local_host) for key, block in model.sources.items()},
        repositories=model.repositories,
        description=model.description,
        owner=model.owner,
        tenant=model.tenant,
        contacts=_contacts(model.contacts),
        objectives=decode_objectives(model.objectives),
    )


def _source(name: str, block: Block, local_host: str | None) -> SourceSpec:
    host = block.host or local_host
    assert host is not None, "references were checked"
    return SourceSpec(name=name, kind=block.kind, host=host, options=block.options)


def _contacts(models: tuple[ContactModel, ...]) -> tuple[Contact, ...]:
    return tuple(Contact(**_values(contact)) for contact in models)


def _values(model: Edge) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}
