"""Exclude patterns, judged by `git check-ignore` with the file system's root as its work tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drctl.sources.excludes import Excludes

PATHS = [
    "a/",
    "a/a",
    "a/b/",
    "a/b/c",
    "a/b/c.o",
    "b/",
    "b/a/",
    "b/a/c",
    "b/b/a/",
    "b/b/a/b",
    "c.o",
    "c.o.d/",
    "c.o.d/x",
    "keep.o",
    "dir/",
    "dir/keep.o",
    "dir/c.o",
    "#a",
    "!a",
    " a",
    "a ",
    "x\ny",
    "x\n",
    "abc",
    "a[b",
    "dir.o/",
    "dir.o/a",
    "deep/",
    "deep/1/",
    "deep/1/2/",
    "deep/1/2/3",
    "A",
    "-",
    "\\a",
]

TABLE = [
    ["*.o"],
    ["*.o", "!keep.o"],
    ["a/"],
    ["/T/a"],
    ["/T/a/"],
    ["T/a"],
    ["a/b"],
    ["**/a/b"],
    ["/T/a/**"],
    ["**/b/**"],
    ["/T/**/a"],
    ["/T/*"],
    ["/T/*", "!/T/dir/"],
    ["*", "!*/"],
    ["/T/a/*", "!/T/a/b"],
    ["/T/a/**/", "!c"],
    ["**/"],
    ["# c", "", "   ", "\\#a"],
    ["\\!a"],
    ["!a", "a"],
    ["a", "!a"],
    ["[ab]"],
    ["[!ab]"],
    ["a??"],
    ["x*"],
    ["a\\ ", "b "],
    ["*.o/"],
    ["/T/deep/**/3"],
    ["deep/"],
    ["/T/deep/1/*/3"],
    ["**"],
    ["\\\\a"],
    ["x?y"],
    ["x"],
    ["/T/dir/", "!/T/dir/keep.o"],
    ["?.o"],
    ["/T/"],
    ["*/"],
    ["a/**/c"],
    ["**/*.o/**"],
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("excludes") / "T"
    root.mkdir()
    for path in PATHS:
        full = root / path
        if path.endswith("/"):
            full.mkdir(parents=True, exist_ok=True)
        elif not full.exists():
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text("")
    subprocess.run(["git", "init", "-q", "--bare", root.parent / "git"], check=True)
    return root


def by_git(tree: Path, patterns: list[str]) -> set[str]:
    """Names below the tree that git ignores."""
    git = tree.parent / "git"
    (git / "info/exclude").write_text("\n".join(patterns) + "\n")
    paths = [os.path.join(where, name) for where, dirs, files in os.walk(tree) for name in dirs + files]
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(path.lstrip("/") for path in paths),
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        env={
            "GIT_DIR": str(git),
            "GIT_WORK_TREE": "/",
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
        },
    )
    assert done.returncode in (0, 1), done.stderr
    return {os.path.relpath("/" + path, tree) for path in done.stdout.split("\0") if path}


def by_us(tree: Path, patterns: list[str]) -> set[str]:
    """The same by our own walk: below an excluded directory everything is."""
    excludes, out = Excludes(patterns), set()
    for where, dirs, files in os.walk(tree):
        inside = os.path.relpath(where, tree) in out
        for names, is_directory in ((dirs, True), (files, False)):
            for name in names:
                path = os.path.join(where, name)
                if inside or excludes.leaves_out(os.fsencode(path), is_directory=is_directory):
                    out.add(os.path.relpath(path, tree))
    return out


def anchored(tree: Path, patterns: list[str]) -> list[str]:
    """`T/` at the start of a pattern stands for the tree's place in the file system."""
    where = str(tree).lstrip("/")
    return [
        pattern.replace("T/", where + "/", 1) if pattern.lstrip("!/").startswith("T/") else pattern
        for pattern in patterns
    ]


def above(tree: Path, patterns: list[str]) -> bool:
    """git also ignores the tree itself here; a root named in a plan is kept, so they may differ."""
    excludes = Excludes(patterns)
    paths = [tree, *tree.parents][:-1]
    return any(excludes.leaves_out(os.fsencode(path), is_directory=True) for path in paths)


@pytest.mark.parametrize("patterns", TABLE, ids=" ".join)
def test_patterns_mean_what_git_says(tree: Path, patterns: list[str]) -> None:
    patterns = anchored(tree, patterns)
    if above(tree, patterns):
        patterns = [*patterns, "!" + str(tree)]
        for parent in list(tree.parents)[:-1]:
            patterns.append("!" + str(parent))
    assert by_us(tree, patterns) == by_git(tree, patterns)


segment = st.sampled_from(
    ["a", "b", "*", "**", "c.o", "*.o", "?", "[ab]", "deep", "1", "dir", "keep.o", "[!a]*", "3"]
)
pattern = st.builds(
    lambda negated, start, parts, end: negated + start + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]), st.sampled_from(["", "/T/", "**/"]),
    st.lists(segment, min_size=1, max_size=3), st.sampled_from(["", "", "/"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(pattern, min_size=1, max_size=4))
def test_any_patterns_mean_what_git_says(tree: Path, patterns: list[str]) -> None:
    patterns = anchored(tree, patterns)
    for path in [*list(tree.parents)[:-1][::-1], tree]:
        patterns.append("!" + str(path) + "/")
    assert by_us(tree, patterns) == by_git(tree, patterns)


@pytest.mark.parametrize("line", ["/", "!", "a[b", "[[:alpha:]]", "a[z-a]"])
def test_a_pattern_that_would_silently_match_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not a pattern|not known"):
        Excludes([line])


def test_a_question_mark_is_one_character_even_of_several_bytes() -> None:
    assert Excludes(["caf?"]).leaves_out("/x/café".encode(), is_directory=False)
    assert Excludes(["caf?"]).leaves_out(b"/x/caf\xe9", is_directory=False)


def test_a_name_with_a_newline_is_matched_to_its_end() -> None:
    assert not Excludes(["x"]).leaves_out(b"/x\n", is_directory=False)
    assert Excludes(["x"]).leaves_out(b"/a\nb/x", is_directory=False)
