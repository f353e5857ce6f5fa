"""Names that one part of the plan uses and another defines.

Invariant: a plan that passes mentions no name it does not define; checked on the positioned text, so
that wrong names are reported together with everything else.
"""

from __future__ import annotations

from collections.abc import Collection

from drctl.planfile.errors import Position, Problems, did_you_mean, quoted
from drctl.planfile.nodes import Node, Scalar, Table, tables, texts

_NEEDS_ADDRESS = ("port", "user", "identity_file", "known_hosts")


def check_references(plan: Table, policies: Collection[str], problems: Problems) -> None:
    """Notes every name that is used and not defined, with the nearest one that is."""
    sites, hosts, repositories = (_names(plan.get(s)) for s in ("sites", "hosts", "repositories"))
    for _, _, host in tables(plan.get("hosts")):
        _check(host.get("site"), "site", sites, problems)
        _check_local(host, problems)
    for _, _, repository in tables(plan.get("repositories")):
        _check(repository.get("site"), "site", sites, problems)
        storage = repository.get("storage")
        if isinstance(storage, Table):  # a storage reached through a host of the plan
            _check(storage.get("host"), "host", hosts, problems)
    for _, _, service in tables(plan.get("services")):
        _check(service.get("policy"), "policy", policies, problems)
        _check(service.get("repositories"), "repository", repositories, problems)
        _check_twice(service.get("repositories"), problems)
        for name, at, source in tables(service.get("sources")):
            _check(source.get("host"), "host", hosts, problems)
            if source.get("host") is None and local_host(plan) is None:
                _ask_for_host(name, at, hosts, problems)


def local_host(plan: Table) -> str | None:
    """The one host without an address: the machine drctl runs on. None when it is not exactly one."""
    local = [name for name, _, host in tables(plan.get("hosts")) if host.get("address") is None]
    return local[0] if len(local) == 1 else None


def _names(section: Node | None) -> Collection[str]:
    return section.entries.keys() if isinstance(section, Table) else ()


def _check(used: Node | None, what: str, defined: Collection[str], problems: Problems) -> None:
    for name, at in texts(used):
        if name not in defined:
            problems.add(at, f"no {what} {quoted(name)} in the plan", did_you_mean(name, defined))


def _check_twice(used: Node | None, problems: Problems) -> None:
    seen: set[str] = set()
    for name, at in texts(used):
        if name in seen:
            problems.add(at, f"{quoted(name)} is listed twice", "remove one")
        seen.add(name)


def _check_local(host: Table, problems: Problems) -> None:
    if host.get("address") is not None:
        return
    for key in _NEEDS_ADDRESS:
        if host.get(key) is not None:
            problems.add(
                host.key_at(key),
                f"{quoted(key)} without an address",
                "add address:, or remove the key: a host without an address is this machine",
            )


def _ask_for_host(name: str, at: Position, hosts: Collection[str], problems: Problems) -> None:
    problems.add(
        at,
        f"the source {quoted(name)} needs a host",
        "it may be left out only when exactly one host has no address"
        + (f"; hosts: {', '.join(sorted(hosts)[:8])}" if hosts else ""),
    )


def policies_used(plan: Table) -> dict[str, Position]:
    """The policies services name, each with the first place that names it."""
    used: dict[str, Position] = {}
    for _, _, service in tables(plan.get("services")):
        policy = service.get("policy")
        if isinstance(policy, Scalar) and isinstance(policy.value, str) and policy.value:
            used.setdefault(policy.value, policy.at)
    return used
