"""The commented plan that `drctl init` writes for a machine; pure.

Invariant: `read_plan` accepts what comes out, whatever the arguments hold: every value is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from drctl.errors import UsageError


@dataclass(frozen=True, slots=True)
class Start:
    """What the first plan of a machine says."""

    hostname: str
    time_zone: str  # an IANA name
    paths: Sequence[str]  # absolute: what is backed up
    repository: str  # absolute path of the local repository
    key_file: str  # absolute path
    organisation: str = "My organisation"
    service: str = "files"
    policy: str = "nightly-30d"
    exclude: Sequence[str] = ("*.tmp", "/proc", "/sys", "/run", "/dev")


def render_plan(start: Start) -> str:
    """The plan's text. UsageError for a value that a YAML file cannot hold (a name that is not UTF-8)."""
    host = host_name(start.hostname)
    paths = "".join(f"          - {quote(path)}\n" for path in start.paths)
    exclude = "".join(f"          - {quote(pattern)}\n" for pattern in start.exclude)
    return _TEXT.format(
        organisation=quote(start.organisation),
        time_zone=quote(start.time_zone),
        host=quote(host),
        repository=quote(start.repository),
        key_file=quote(start.key_file),
        service=quote(start.service),
        policy=quote(start.policy),
        paths=paths.rstrip("\n"),
        exclude=exclude.rstrip("\n") or "          []",
    )


def host_name(hostname: str) -> str:
    """The machine's name as a plan may hold it: the first label, other characters replaced."""
    label = re.sub(r"[^A-Za-z0-9_-]", "-", hostname.split(".", maxsplit=1)[0])[:63].strip("-_")
    return label or "this-machine"


def quote(text: str) -> str:
    """The text as a double-quoted YAML value that is not interpolated."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UsageError(
            f"{text!a} is not UTF-8 and cannot stand in a plan", hint="back up the folder above it"
        ) from exc
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "$${")
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


_TEXT = """\
# A drctl plan: what was promised, and where everything lies.
#
#   drctl plan validate      checks this file and the policies it names
#   drctl plan show          shows what drctl understood
#   drctl plan schema        JSON Schema, for an editor that completes and checks while you type
#
# Values may hold ${{NAME}} or ${{NAME:-default}} from the environment ($${{ stands for a literal ${{).
# Secrets never stand here, only the places they come from.

organisation: {organisation}
time_zone: {time_zone} # schedules and calendar days are in it
# calendar: sweden # the business calendar
# include: [services/*.yaml] # more files, relative to this one

# A site is a place that fails as a whole: a data centre, a region, an office.
sites:
  here:
    description: "Where this machine stands"
  # elsewhere:
  #   description: "Another place, for the copies that survive the loss of this one"

# A host without an address is the machine drctl runs on.
hosts:
  {host}:
    site: here
  # db1:
  #   site: here
  #   address: db1.example.net
  #   user: backup
  #   known_hosts: /etc/drctl/known_hosts # the host's public key; no other is trusted

# Where snapshots lie. They are encrypted; without the key nobody reads them, you neither: keep a copy
# of the key file away from this machine.
repositories:
  main:
    site: here
    storage:
      kind: local
      path: {repository}
    key:
      file: {key_file}

# What the business calls one thing: what is backed up, by which policy, into which repositories.
services:
  {service}:
    # nightly-30d, incremental-90d and standby-31d come with drctl; a file policies/NAME.yaml next to
    # this one adds your own.
    policy: {policy}
    # owner: Jane Doe
    # contacts:
    #   - {{name: Jane Doe, email: jane@example.net, phone: "+46 8 123 45 67"}}
    repositories: [main] # the first takes the backups, the others hold copies
    sources:
      files:
        kind: files
        paths:
{paths}
        exclude: # patterns as in .gitignore
{exclude}
"""
