"""The plan: what an organisation promised, as frozen values.

Invariant: a `Plan` that exists is consistent: every name it mentions is defined in it. It is
made by `planfile`, which reports all errors at once; nothing else builds one from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum


class DisasterClass(Enum):
    """What went wrong decides which copies survive (vocabulary: disaster class)."""

    SERVER = "server"
    SITE = "site"
    LOGICAL = "logical"
    OPERATOR = "operator"


class Chunker(Enum):
    """How files over 512 KiB are cut. A change of it means large files are stored once more."""

    FASTCDC = "fastcdc"
    RESTIC = "restic"


class Compression(Enum):
    """zstd effort: `auto` skips what does not shrink."""

    OFF = "off"
    AUTO = "auto"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody who is told."""

    name: str
    email: str | None = None
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A place that fails as a whole: a data centre, a region, an office."""

    name: str
    description: str = ""
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. Without an address it is the machine drctl runs on."""

    name: str
    site: str
    address: str | None = None
    port: int = 22
    user: str | None = None
    identity_file: str | None = None
    known_hosts: str | None = None


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret comes from; exactly one field is set. The secret itself is never in a plan."""

    file: str | None = None
    command: tuple[str, ...] | None = None
    environment: str | None = None
    credential: str | None = None  # a systemd credential's name ($CREDENTIALS_DIRECTORY)


@dataclass(frozen=True, slots=True)
class StorageSpec:
    """Which storage adapter, with that adapter's own frozen Options."""

    kind: str
    options: object


@dataclass(frozen=True, slots=True)
class RepositorySpec:
    """Where snapshots lie, and the key that opens them."""

    name: str
    site: str
    storage: StorageSpec
    key: SecretReference
    chunker: Chunker = Chunker.FASTCDC
    compression: Compression = Compression.AUTO
    append_only: bool = False  # a claim, proven at init; refused where the storage does not honour it
    upload_limit_bytes_s: int | None = None
    download_limit_bytes_s: int | None = None
    connections: int = 4
    retry_for: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One thing that is backed up: which source adapter, on which host, with its frozen Options."""

    name: str
    kind: str
    host: str
    options: object


@dataclass(frozen=True, slots=True)
class Service:
    """What the business calls one thing. `objectives` stand in for the policy's, class by class."""

    name: str
    policy: str
    sources: Mapping[str, SourceSpec]
    repositories: tuple[str, ...]  # the first takes the backups, the others hold copies
    description: str = ""
    owner: str | None = None
    tenant: str | None = None
    contacts: tuple[Contact, ...] = ()
    objectives: Mapping[DisasterClass, Objective] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When backups are due: cron expressions in the plan's time zone."""

    full: str | None = None
    incremental: str | None = None
    continuous: timedelta | None = None  # the bound a continuous stream must keep


@dataclass(frozen=True, slots=True)
class Retention:
    """Two explicit bounds and GFS rules; see `domain.retention` for what they mean."""

    keep_at_least: timedelta | None = None
    gone_by: timedelta | None = None
    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta | None = None
    purge_lag: timedelta = timedelta(days=1)
    floor: int = 1  # the newest complete snapshots that never go
    brake_fraction: float = 0.5  # more than this part of a group going at once stops the run


@dataclass(frozen=True, slots=True)
class Objective:
    """What was promised for one disaster class. None is 'no target', never zero."""

    rpo: timedelta | None = None
    max_loss: timedelta | None = None
    rto: timedelta | None = None
    excluded_phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreTestRules:
    """How often and how a restore is tested."""

    schedule: str
    choose: str = "latest"
    sample_files: int = 100
    within: timedelta | None = None
    time_limit: timedelta = timedelta(hours=4)
    disaster_class: DisasterClass = DisasterClass.SERVER


@dataclass(frozen=True, slots=True)
class Policy:
    """Schedule, retention, objectives and restore-test rules, shared by many services."""

    name: str
    schedule: Schedule
    retention: Retention
    objectives: Mapping[DisasterClass, Objective]
    restore_test: RestoreTestRules | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan, consistent in itself."""

    file: str
    organisation: str
    time_zone: str  # an IANA name
    sites: Mapping[str, Site]
    hosts: Mapping[str, Host]
    repositories: Mapping[str, RepositorySpec]
    services: Mapping[str, Service]
    policies: Mapping[str, Policy]
    calendar: str | None = None
    contacts: tuple[Contact, ...] = ()
    playbooks: Mapping[str, str] = field(default_factory=dict)  # name -> file

    def objectives_of(self, service: Service) -> dict[DisasterClass, Objective]:
        """What is promised for a service: its policy's objectives, its own in their place."""
        return {**self.policies[service.policy].objectives, **service.objectives}
