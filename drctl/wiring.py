"""From the plan to live objects: the only importer of adapters.

Invariant: nothing is opened, read or connected before it is asked for; what is handed on is a port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drctl.credentials import read_secret
from drctl.domain.plan import Host, Plan, RepositorySpec, Service, SourceSpec
from drctl.domain.secret import Secret
from drctl.errors import UsageError
from drctl.ports import Cache, Clock, Source, Storage

if TYPE_CHECKING:
    from drctl.remote import ParamikoRemote
    from drctl.repository.repo import Repository


def load_plan(path: Path, environment: Mapping[str, str]) -> Plan:
    """The plan in a file; PlanError with all that is wrong in it."""
    from drctl.planfile.read import read_plan

    return read_plan(str(path), environment, source_options(), storage_options())


def source_options() -> dict[str, type]:
    """Each kind of source with its Options, plug-ins included."""
    from drctl.sources import all_sources, load_source

    return {kind: _options_of(load_source(kind)) for kind in all_sources()}


def storage_options() -> dict[str, type]:
    """Each kind of storage with its Options, plug-ins included."""
    from drctl.storage import storage_kind, storage_kinds

    return {kind: storage_kind(kind).options for kind in storage_kinds()}


def _options_of(adapter: Any) -> type:
    options: type = adapter.Options
    return options


@dataclass(frozen=True, slots=True)
class Wiring:
    """Live objects of one plan."""

    plan: Plan
    environment: Mapping[str, str]
    clock: Clock

    def repository_spec(self, name: str | None) -> RepositorySpec:
        """A repository of the plan; without a name the only one there is. UsageError otherwise."""
        known = self.plan.repositories
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name is None:
            raise UsageError(f"which repository? the plan has {', '.join(known)}", hint="name one")
        if name not in known:
            raise UsageError(f"no repository {name!r} in the plan", hint=f"there are: {', '.join(known)}")
        return known[name]

    def service(self, name: str) -> Service:
        """A service of the plan; UsageError when it has none of that name."""
        if name not in self.plan.services:
            raise UsageError(
                f"no service {name!r} in the plan", hint=f"there are: {', '.join(self.plan.services)}"
            )
        return self.plan.services[name]

    def storage(self, spec: RepositorySpec) -> Storage:
        """A repository's storage, with retries and limits around it."""
        from drctl.storage.wrappers import Limited, Retrying, Throttled

        storage: Storage = Limited(self._bare_storage(spec), spec.connections)
        if spec.upload_limit_bytes_s or spec.download_limit_bytes_s:
            storage = Throttled(storage, self.clock, spec.upload_limit_bytes_s, spec.download_limit_bytes_s)
        return Retrying(storage, self.clock, spec.retry_for)

    def repository(self, spec: RepositorySpec) -> Repository:
        """Open a repository with the key that the plan names."""
        from drctl.repository.opening import open_repository

        return open_repository(self.storage(spec), self.key(spec), compression=spec.compression)

    def key(self, spec: RepositorySpec) -> Secret:
        """The `Secret` that opens a repository."""
        return read_secret(spec.key, self.environment, f"key of repository {spec.name}")

    def cache(self) -> Cache:
        """Where files lie that only spare time."""
        from drctl.cache import LocalCache, cache_folder

        return LocalCache(cache_folder(self.environment))

    def source(self, spec: SourceSpec) -> Source:
        """A source, read here or, on a host with an address, over SSH."""
        from drctl.sources import load_source

        host = self.plan.hosts[spec.host]
        if host.address is None:
            source: Source = load_source(spec.kind)(spec.options)
            return source
        remote_source: Source = load_source(spec.kind, remote=True)(spec.options, self.remote(host))
        return remote_source

    def remote(self, host: Host) -> ParamikoRemote:
        """The way to a host of the plan. Nothing is connected yet."""
        from drctl.remote import ParamikoRemote, RemoteOptions

        if host.address is None:
            raise UsageError(f"host {host.name!r} has no address in the plan")
        return ParamikoRemote(
            RemoteOptions(host.address, host.port, host.user, host.identity_file, host.known_hosts)
        )

    def _bare_storage(self, spec: RepositorySpec) -> Storage:
        from drctl.storage import storage_kind

        kind, options = storage_kind(spec.storage.kind), spec.storage.options
        match kind.name:
            case "s3":
                storage: Storage = kind.storage(options, self.clock, self._s3_credentials(spec, options))
            case "sftp":
                storage = kind.storage(options, self._sftp_remote(options))
            case _:
                storage = kind.storage(options)
        return storage

    def _s3_credentials(self, spec: RepositorySpec, options: Any) -> Any:
        from drctl.storage.s3 import S3Credentials

        if options.access_key is None or options.secret_key is None:
            return None
        secret = {
            name: read_secret(reference, self.environment, f"{name} of repository {spec.name}")
            for name in ("access_key", "secret_key", "session_token")
            if (reference := getattr(options, name)) is not None
        }
        return S3Credentials(**secret)

    def _sftp_remote(self, options: Any) -> ParamikoRemote:
        from drctl.remote import ParamikoRemote, RemoteOptions

        if options.host is not None:
            return self.remote(self.plan.hosts[options.host])
        if options.address is None:
            raise UsageError(f"sftp storage {options.path}: neither host nor address is given")
        return ParamikoRemote(
            RemoteOptions(
                options.address,
                options.port,
                options.user,
                options.identity_file,
                options.known_hosts,
                options.timeout_s,
            )
        )
