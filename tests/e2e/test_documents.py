"""Every command on the README and the how-to pages is run, and every link leads somewhere."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest

from drctl.errors import EXIT_CODE_MEANINGS
from tests.e2e.documents import ROOT, Session
from tests.servers.s3 import S3Server
from tests.servers.ssh import SshServer

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors_of(page: Path) -> set[str]:
    """Where a link into a page may lead: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors_of(there), f"{page.name}: {target} has no such heading"


def test_every_test_that_the_readme_names_is_there() -> None:
    for row in re.findall(r"^\| [A-Z].*\|(.*)\|$", (ROOT / "README.md").read_text(), re.M):
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            path = ROOT / (name if "/" in name else f"{folder}/{name}")
            assert path.exists(), f"README.md: {name} is not there"
            folder = str(path.parent.relative_to(ROOT)) if path.is_file() else str(path.relative_to(ROOT))


def test_the_readmes_session_prints_what_the_readme_says(tmp_path: Path) -> None:
    assert Session(tmp_path).run(ROOT / "README.md") > 5


def test_the_page_of_exit_codes_has_every_code_and_its_meaning() -> None:
    page = (ROOT / "docs/reference/exit-codes.md").read_text()
    rows = {int(code): meaning for code, meaning in re.findall(r"^\| `(\d+)` \| ([^|]+) \|", page, re.M)}
    assert rows == {code.value: meaning for code, meaning in EXIT_CODE_MEANINGS.items()}


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_every_command_of_a_how_to_page_works(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = page.read_text()
    session = Session(tmp_path, replaced=servers_for(text, request))
    if "backup.example.net" in text:
        log_in_with(session, request.getfixturevalue("sshd"))
    commands = session.run(page)
    assert commands > 0 or "```console" not in text


def servers_for(text: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """What stands on a page for a server, and the one that is running here."""
    found: dict[str, str] = {}
    if "s3.example.net" in text:
        s3: S3Server = request.getfixturevalue("s3_moto")
        found |= {"https://s3.example.net": s3.endpoint, "example-backup": s3.bucket_of_its_own()}
        found |= {"EXAMPLEKEYID": s3.access_key, "EXAMPLESECRET": s3.secret_key}
    if "backup.example.net" in text:
        sshd: SshServer = request.getfixturevalue("sshd")
        files = sshd.root / secrets.token_hex(4)
        files.mkdir()
        found |= {"backup.example.net": sshd.address, "2022": str(sshd.port), "/srv/files": str(files)}
        found |= {"user: drctl": f"user: {sshd.user}", "drctl@": f"{sshd.user}@"}
    return found


def log_in_with(session: Session, sshd: SshServer) -> None:
    """The private key lies where people keep theirs."""
    folder = session.home / ".ssh"
    folder.mkdir(mode=0o700)
    identity = folder / "id_ed25519"
    identity.write_bytes(sshd.identity_file.read_bytes())
    identity.chmod(0o600)
