"""The plan and policy files as pydantic sees them: keys, types and descriptions.

Invariant: what validates here differs from `domain.plan` only in spelling; names across sections and
promises that contradict each other are checked elsewhere (`references`, `lint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from drctl.domain.plan import Chunker, Compression, DisasterClass
from drctl.planfile.fields import (
    AbsolutePath,
    Cron,
    Duration,
    DurationOrZero,
    Edge,
    Name,
    Phase,
    Secret,
    Size,
    TimeZone,
)
from drctl.planfile.options import block_type

Count = Annotated[int, Field(ge=0)]


class ContactModel(Edge):
    """Somebody who is told."""

    name: str = Field(min_length=1)
    email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$")
    phone: str | None = Field(
        None, pattern=r"^\+?[0-9 ()-]{3,30}$", description='In quotes: "+46 8 123 45 67".'
    )


class SiteModel(Edge):
    """A place that fails as a whole: a data centre, a region, an office."""

    description: str = ""
    region: str | None = None


class HostModel(Edge):
    """A machine. Without an address it is the machine drctl runs on."""

    site: Name = Field(description="One of the plan's sites.")
    address: str | None = Field(
        None, pattern=r"^[A-Za-z0-9:_][A-Za-z0-9:._%-]*$", description="Name or IP address."
    )
    port: int = Field(22, ge=1, le=65535)
    user: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$")
    identity_file: AbsolutePath | None = Field(None, description="The private SSH key.")
    known_hosts: AbsolutePath | None = Field(
        None, description="The file with the host's public key; no other is trusted."
    )


class RepositoryFields(Edge):
    """Where snapshots lie, and where the key that opens them comes from."""

    site: Name = Field(description="One of the plan's sites.")
    key: Secret = Field(description="Where the repository's key comes from.")
    chunker: Chunker = Field(Chunker.FASTCDC, description="How files over 512 KiB are cut.")
    compression: Compression = Compression.AUTO
    append_only: bool = Field(
        False,
        description="The storage itself refuses to replace a file; proven at repo init. "
        "Deleting is another matter: see object_lock_days of s3.",
    )
    upload_limit: Size | None = Field(None, description="Per second, for example 10MB.")
    download_limit: Size | None = Field(None, description="Per second, for example 10MB.")
    connections: int = Field(4, ge=1, le=64, description="How many transfers run at once.")
    retry_for: DurationOrZero = Field(
        timedelta(minutes=2), description="How long an unreachable storage is retried."
    )


class ObjectiveModel(Edge):
    """What was promised for one disaster class. What is left out is 'no target': measured, not judged."""

    rpo: Duration | None = Field(None, description="The age the newest usable recovery point may reach.")
    max_loss: Duration | None = Field(None, description="The most work that may be lost; at least the RPO.")
    rto: Duration | None = Field(None, description="The time until the service is usable again.")
    excluded_phases: tuple[Phase, ...] = Field((), description="Phases the promised RTO leaves out.")


Objectives = dict[DisasterClass, ObjectiveModel]


class ServiceFields(Edge):
    """What the business calls one thing."""

    description: str = ""
    policy: Name = Field(
        description="The name of a policy: policies/NAME.yaml next to the plan, or a shipped one."
    )
    owner: str | None = Field(None, description="Who answers for it.")
    tenant: str | None = Field(None, description="Whose data it is.")
    contacts: tuple[ContactModel, ...] = ()
    repositories: tuple[Name, ...] = Field(
        min_length=1,
        description="Names of repositories; the first takes the backups, the others hold copies.",
    )
    objectives: Objectives = Field(
        default_factory=dict,
        description="Replaces the policy's objective of the disaster classes named here.",
    )


class PlanFields(Edge):
    """A drctl plan: what was promised, and where everything lies."""

    organisation: str = Field(min_length=1, description="Whose plan it is.")
    time_zone: TimeZone = Field(description="An IANA name such as Europe/Stockholm; schedules are in it.")
    calendar: Name | None = Field(None, description="The business calendar, for example sweden.")
    contacts: tuple[ContactModel, ...] = ()
    sites: dict[Name, SiteModel] = Field(min_length=1, description="Places that fail as a whole, by name.")
    hosts: dict[Name, HostModel] = Field(min_length=1, description="Machines, by name.")


class ScheduleModel(Edge):
    """When backups are due, in the plan's time zone."""

    full: Cron | None = Field(None, description="Re-reads every byte.")
    incremental: Cron | None = Field(None, description="Trusts unchanged metadata.")
    continuous: Duration | None = Field(
        None, description="The lag a continuous stream (WAL) must stay below."
    )


class RetentionModel(Edge):
    """Two bounds; between them the rules decide. Age counts from now, never from the newest snapshot."""

    keep_at_least: Duration | None = Field(None, description="No snapshot younger than this goes.")
    gone_by: Duration | None = Field(None, description="No snapshot older than this is left, in any copy.")
    last: Count = Field(0, description="Keep this many newest snapshots.")
    hourly: Count = Field(0, description="Keep the newest of each of this many hours.")
    daily: Count = Field(0, description="Keep the newest of each of this many days.")
    weekly: Count = Field(0, description="Keep the newest of each of this many ISO weeks.")
    monthly: Count = Field(0, description="Keep the newest of each of this many months.")
    yearly: Count = Field(0, description="Keep the newest of each of this many years.")
    within: Duration | None = Field(None, description="Keep everything younger than this.")
    purge_lag: DurationOrZero = Field(
        timedelta(days=1), description="From forgetting until the bytes are gone."
    )
    floor: int = Field(1, ge=1, description="The newest complete snapshots that never go.")
    brake_fraction: float = Field(
        0.5, gt=0, le=1, description="More than this part of a group going at once stops the run."
    )


class RestoreTestModel(Edge):
    """How often and how a restore is tested."""

    schedule: Cron
    choose: Literal["latest", "oldest", "random"] = Field(
        "latest", description="Which recovery point is restored."
    )
    sample_files: int = Field(100, ge=1, description="How many files are restored and compared.")
    within: Duration | None = Field(None, description="A proof older than this is an alarm.")
    time_limit: Duration = Field(timedelta(hours=4), description="A test that takes longer fails.")
    disaster_class: DisasterClass = Field(DisasterClass.SERVER, description="What is assumed lost.")


class PolicyModel(Edge):
    """A drctl policy: schedule, retention, objectives and restore-test rules, shared by many services."""

    description: str = ""
    schedule: ScheduleModel
    retention: RetentionModel
    objectives: Objectives = Field(default_factory=dict, description="What is promised, by disaster class.")
    restore_test: RestoreTestModel | None = None


def plan_model(source_options: Mapping[str, type], storage_options: Mapping[str, type]) -> type[Edge]:
    """The whole plan's model, with one variant of `source` and `storage` per kind that is handed in."""
    return _plan_model(tuple(source_options.items()), tuple(storage_options.items()))


@lru_cache(maxsize=8)  # tens of milliseconds each, and a process has one set of kinds
def _plan_model(
    source_options: tuple[tuple[str, type], ...], storage_options: tuple[tuple[str, type], ...]
) -> type[Edge]:
    storage: Any = block_type(dict(storage_options), with_host=False)
    source: Any = block_type(dict(source_options), with_host=True)
    repository: Any = create_model(
        "Repository",
        __base__=RepositoryFields,
        __doc__=RepositoryFields.__doc__,
        storage=(storage, Field(description="Which storage, with its own options.")),
    )
    service: Any = create_model(
        "Service",
        __base__=ServiceFields,
        __doc__=ServiceFields.__doc__,
        sources=(dict[Name, source], Field(min_length=1, description="What is backed up.")),
    )
    return create_model(
        "Plan",
        __base__=PlanFields,
        __doc__=PlanFields.__doc__,
        repositories=(
            dict[Name, repository],
            Field(min_length=1, description="Where snapshots lie, by name."),
        ),
        services=(dict[Name, service], Field(min_length=1, description="What is protected, by name.")),
    )
