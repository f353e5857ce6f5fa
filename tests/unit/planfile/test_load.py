"""YAML is read strictly, with positions, in bounded time and memory."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.planfile import load as load_module
from drctl.planfile.errors import PlanError, Problems
from drctl.planfile.load import load, read_file
from drctl.planfile.nodes import Items, Table, plain


def found(text: str | bytes) -> list[str]:
    problems = Problems()
    load(text.encode() if isinstance(text, str) else text, "f.yaml", {}, problems)
    return problems.error().message.splitlines() if problems else []


def values(text: str, **environment: str) -> object:
    problems = Problems()
    table = load(text.encode(), "f.yaml", environment, problems)
    problems.raise_if_any()
    assert table is not None
    return plain(table)


SURPRISES = [
    "no",
    "yes",
    "on",
    "off",
    "No",
    "YES",
    "On",
    "OFF",
    "True",
    "FALSE",
    "y",
    "N",
    "~",
    "null",
    "Null",
    "NULL",
    "22:30",
    "1:30:00",
    "190:20:30",
    "010",
    "0o10",
    "0O7",
    "1_000",
    "0x1F",
    "0b1",
    "+5",
    "1e3",
    "1.5e+3",
    ".inf",
    "-.INF",
    ".nan",
    ".5",
    "5.",
    "2026-01-01",
    "2026-01-01T10:00:00Z",
    "=",
    "1_0.5",
    "00",
    "-010",
    "+.inf",
    "09",
    "12345678901234567890",
]


@pytest.mark.parametrize("word", [word for word in SURPRISES if word not in ("0O7",)])
def test_a_word_that_readers_disagree_about_must_be_quoted(word: str) -> None:
    (line,) = found(f"a:\n  - {word}\n")
    assert line.startswith(f"f.yaml:2:5: unquoted {word} would be read as ")
    assert line.endswith(f'(write "{word}")')
    assert values(f'a: "{word}"') == {"a": word}
    assert values(f"a: '{word}'") == {"a": word}


@pytest.mark.parametrize("word", ["no", "on", "22:30", "010", "true", "2026-01-01", "~"])
def test_a_key_that_readers_disagree_about_must_be_quoted(word: str) -> None:
    assert found(f"a: 1\n{word}: 1\n")[0].startswith(f"f.yaml:2:1: unquoted {word} would be read as")
    assert values(f'"{word}": 1') == {word: 1}


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("false", False), ("0", 0), ("-7", -7), ("30", 30), ("0.5", 0.5), ("-1.25", -1.25),
     ("30d", "30d"), ("1h 30min", "1h 30min"), ("Example AB", "Example AB"), ("v1.2.3", "v1.2.3"),
     ("nightly-30d", "nightly-30d"), ("/usr/share/doc", "/usr/share/doc"), ("10.0.0.1", "10.0.0.1"),
     ("none", "none"), ("0O7", "0O7")],
)  # fmt: skip
def test_plain_words_and_decimal_numbers_mean_what_they_say(word: str, value: object) -> None:
    assert values(f"a: {word}") == {"a": value}
    assert yaml.safe_load(f"a: {word}") == {"a": value}


def test_every_word_that_yaml_reads_as_something_else_is_caught() -> None:
    # the other reader's own answer decides, not our table
    for word in [
        *SURPRISES,
        *(f"{a}{b}" for a in ("0", "1", "-2", "+3", ".4") for b in ("", "1", "_2", ":30", ".5", "e2")),
    ]:
        read = yaml.safe_load(word) if word not in ("=",) else None
        if isinstance(read, str) or found(f"a: {word}"):
            continue
        assert values(f"a: {word}") == {"a": read}
        assert str(read).lower() == word


BAD_FILES: list[tuple[str | bytes, str, str]] = [
    ("a: 1\nb: 2\na: 3\n", "3:1", "duplicate key 'a' (first at line 1; keep one of them)"),
    ("a: {b: 1, b: 2}\n", "1:11", "duplicate key 'b'"),
    ("a: 1\nb: !!python/object/apply:os.system [id]\n", "2:4", "a tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
    ("a: !x 1\n", "1:4", "a tag '!x'"),
    ("a: !!str 1\n", "1:4", "a tag 'tag:yaml.org,2002:str'"),
    ("a: &b [1]\n", "1:4", "an anchor '&b'"),
    ("a: *b\n", "1:4", "an alias '*b'"),
    ("a: {<<: {b: 1}}\n", "1:5", "a merge key '<<'"),
    ("a: 1\n---\nb: 2\n", "2:1", "a second document"),
    ("%YAML 1.1\n---\na: 1\n", "1:1", "a YAML directive"),
    ("a:\n\t- 1\n", "2:1", "a tab"),
    ("a: b\t# c\n", "1:5", "a tab"),
    ("å: b\x07\n", "1:5", "an invisible character '\\x07'"),
    ("a: b\u2028c: d\n", "1:5", "an invisible character '\\u2028'"),
    (b"a: 1\nb: \xff\n", "2:4", "not UTF-8 text"),
    (b"", "1:1", "the file is empty"),
    (b"# only a comment\n", "1:1", "the file is empty"),
    ("- a\n", "1:1", "the file must be a mapping"),
    ("just text\n", "1:1", "the file must be a mapping"),
    ("a: [1\n", "2:1", "not YAML: "),
    ("a: b: c\n", "1:5", "not YAML: mapping values are not allowed in this context"),
    ("a: @b\n", "1:4", "not YAML: "),
    ("? [a]\n: 1\n", "1:3", "a key that is not a word"),
    ("a:\n" + "".join("  " * n + "- \n" for n in range(60)), "51:", "nested deeper than 50"),
    (b"a: " + b"x" * (1 << 20), "1:1", "the file is larger than 1 MiB"),
    ('a: "\\ud800"\n', "1:", "not YAML"),
    ("a: ${X}\n", "1:4", "environment variable X is not set (set it, or write ${X:-default})"),
    ("a: ${X\n", "1:4", "broken reference in '${X'"),
    ("a: {b: ${X}}\n", "1:", "inside { } a value with ${NAME} needs quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), BAD_FILES)
def test_what_is_wrong_in_the_text_is_told_with_its_place(
    text: str | bytes, place: str, message: str
) -> None:
    line = found(text)[0]
    assert line.startswith(f"f.yaml:{place}")
    assert message in line


def test_all_problems_of_the_text_are_told_at_once() -> None:
    lines = found("a: no\nb: !x 1\na: 2\nc: &d 3\ne: *d\nf: ${G}\n")
    assert [line.split(": ")[0] for line in lines] == [
        f"f.yaml:{place}" for place in ("1:4", "2:4", "3:1", "4:4", "5:4", "6:4")
    ]


def test_every_value_and_key_keeps_its_place() -> None:
    problems = Problems()
    table = load(b'a:\n  - b: x\n    c: "y"\n', "f.yaml", {}, problems)
    assert isinstance(table, Table)
    items = table.get("a")
    assert isinstance(items, Items)
    inner = items.items[0]
    assert isinstance(inner, Table)
    assert [str(inner.key_at(key)) for key in "bc"] == ["f.yaml:2:5", "f.yaml:3:5"]
    assert str(inner.entries["c"][1].at) == "f.yaml:3:8"


def test_the_pure_python_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: no\nb: {c: 1, d: [x, 'y']}\ne:\nf: *g\n"
    fast = found(text), values("b: {c: 1, d: [x, 'no']}\ne:\n")
    monkeypatch.setattr(load_module, "_LOADER", yaml.SafeLoader)
    assert (found(text), values("b: {c: 1, d: [x, 'no']}\ne:\n")) == fast


BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "flow depth": "a: " + "[" * 500_000,
    "flow mappings": "a: " + "{a: " * 200_000,
    "block depth": "".join(" " * n + "a:\n" for n in range(1_000)),
    "one-line sequences": "a:\n" + "- " * 400_000,
    "complex keys": "? " * 400_000,
    "many keys": "".join(f"k{n}: 1\n" for n in range(90_000)),
    "duplicate keys": "a: 1\n" * 200_000,
    "long word": "a: " + "9" * 1_000_000,
    "long base 60": "a: " + "1:" * 500_000 + "1",
    "references": "a: " + "${" * 400_000,
    "many tags": "a: [" + "!x y, " * 100_000 + "]",
}  # fmt: skip


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
from drctl.planfile.errors import Problems
from drctl.planfile.load import load
problems = Problems()
load(sys.stdin.buffer.read(), "f.yaml", {}, problems)
print(problems.error().problems[0] if problems else "nothing wrong")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_bounded_time_and_memory(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        input=BOMBS[name].encode()[: 1 << 20],
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"f.yaml:") or name == "many keys"


def test_a_fifo_a_folder_and_a_missing_file_are_problems_and_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ".", "missing", "a\0b"):
        problems = Problems()
        assert read_file(str(tmp_path / name), problems) is None
        assert problems


@pytest.mark.parametrize(
    ("text", "value"),
    [("${A}", "x"), ("${A}/${B:-y}", "x/y"), ("${E:-d}", "d"), ("${E}", ""), ("$${A}", "${A}"), ("$A", "$A"),
     ("$${A}${A}", "${A}x"), ("${N}", 22), ('"${N}"', "22"), ("${NO}", "no"), ("${B:-}", ""), ("${R}", "${A}"),
     ("${B:-a b/c:d}", "a b/c:d"), ("$$", "$$")],
)  # fmt: skip
def test_references_to_the_environment_are_replaced_once(text: str, value: object) -> None:
    assert values(f"a: {text}", A="x", E="", N="22", NO="no", R="${A}") == {"a": value}


yaml_like = st.lists(
    st.sampled_from(
        ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "'", '"', "|", ">", "&x", "*x", "!y", "#", "? ",
         "---\n", "...\n", "%", "no", "1", "~", "\\", "\\x", "${", "}", "é", "\r\n", "<<", "@", "`", "\0", "\t"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(yaml_like | st.text(max_size=80))
def test_no_text_gives_anything_but_nodes_or_problems(text: str) -> None:
    problems = Problems()
    table = load(text.encode("utf-8", "surrogatepass"), "f.yaml", {}, problems)
    assert table is not None or problems
    if problems:
        assert isinstance(problems.error(), PlanError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_give_anything_but_nodes_or_problems(data: bytes) -> None:
    problems = Problems()
    assert load(data, "f.yaml", {}, problems) is not None or problems


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


texts = st.text(max_size=20).filter(lambda text: "${" not in text)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_a_careful_yaml_writer_writes_is_read_back(value: object) -> None:
    text = yaml.dump({"top": value}, Dumper=_NoAliases, default_style='"')
    assert values(text) == {"top": value}
