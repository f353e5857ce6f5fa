"""The runner of pages fails where a page says what is not so: without that it proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.documents import Command, File, PageError, Session, steps_of


def page(folder: Path, *lines: str) -> Path:
    """A page with one session."""
    written = folder / "page.md"
    written.write_text("\n".join(["# Page", "", "```console", *lines, "```", ""]))
    return written


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "session").mkdir()
    return Session(tmp_path / "session")


def test_a_page_is_read_as_commands_with_their_lines_and_files() -> None:
    text = "```console\n$ one\nout\n$ two \\\n> more\n```\n<!-- file: a.yaml -->\n```yaml\nx: 1\n```\n"
    text += "```sh\nno\n```\n"
    assert list(steps_of(text)) == [
        Command(2, "one", ("out",)),
        Command(4, "two \\\nmore", ()),
        File(8, "a.yaml", "x: 1\n"),
    ]


GOOD = [
    (["$ echo one; echo two", "one", "two"], "all lines"),
    (["$ echo one; echo two; echo three", "...", "three"], "lines left out"),
    (["$ echo 'a   b'", "a b"], "columns of another width"),
    (["$ echo took 17.5 MiB", "took 3 KiB"], "another size"),
    (["$ false", "$ echo $?", "1"], "a failure that is told"),
    (["$ cd /; export A=7", "$ echo $A $PWD", "7 /"], "a shell that goes on"),
    (["$ echo made 1234abcd", "made 0000aaaa", "$ echo 0000aaaa", "0000aaaa"], "an id that is remembered"),
    (
        [
            "$ echo 2026-01-01 10:00:01Z",
            "2025-05-05 05:05:05Z",
            "$ echo 2026-01-01 10:00:02Z",
            "2025-05-05 05:05:05Z",
        ],
        "a receipt a second later",
    ),
    (["$ cat <<'END'", "> one", "> END", "one"], "a command of several lines"),
    (["$ pwd", "/home/jane"], "a home of its own"),
]
BAD = [
    (["$ false"], "ended with 1"),
    (["$ false", "$ echo $?", "3"], "exit code is 1"),
    (["$ true", "$ echo $?", "3"], "exit code is 0"),
    (["$ echo one", "two"], "does not print 'two'"),
    (["$ echo one; echo two", "one"], "prints more"),
    (["$ echo one; echo two", "two"], "does not print 'two'"),
    (["$ echo two; echo one", "one", "...", "two"], "does not print 'one'"),
    (["$ true", "one"], "does not print 'one'"),
    (["$ echo made 1234abcd", "made 0000aaaa", "$ echo 9999eeee", "0000aaaa"], "does not print"),
    (
        [
            "$ echo 2026-01-01 10:00:01Z",
            "2025-05-05 05:05:05Z",
            "$ echo 2026-01-01 11:00:02Z",
            "2025-05-05 05:05:05Z",
        ],
        "does not print",
    ),
    (["$ nosuchcommand"], "ended with 127"),
]


@pytest.mark.parametrize(("lines", "what"), GOOD, ids=[what for _, what in GOOD])
def test_a_page_that_says_what_is_so_passes(
    tmp_path: Path, session: Session, lines: list[str], what: str
) -> None:
    assert session.run(page(tmp_path, *lines)) > 0


@pytest.mark.parametrize(("lines", "complaint"), BAD, ids=[" / ".join(lines) for lines, _ in BAD])
def test_a_page_that_says_what_is_not_so_fails(
    tmp_path: Path, session: Session, lines: list[str], complaint: str
) -> None:
    with pytest.raises(PageError, match=complaint):
        session.run(page(tmp_path, *lines))


def test_files_of_a_page_are_written_with_its_servers_replaced(tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    session = Session(tmp_path / "session", replaced={"s3.example.net": "127.0.0.1:9"})
    text = "<!-- file: a.yaml -->\n```yaml\nat: s3.example.net\n```\n\n"
    text += "```console\n$ cat a.yaml\nat: s3.example.net\n```\n"
    written = tmp_path / "page.md"
    written.write_text(text)
    assert session.run(written) == 1
    assert (session.home / "a.yaml").read_text() == "at: 127.0.0.1:9\n"
