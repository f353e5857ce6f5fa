"""What an unquoted YAML word means, and which ones mean different things to different readers.

Invariant: a word is either text, `true`, `false` or a plain decimal number; a word that YAML 1.1
or 1.2 reads as anything else is not guessed at, it is an error that asks for quotes.
"""

from __future__ import annotations

import re

import yaml

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_READ_AS = {
    "tag:yaml.org,2002:bool": "yes or no",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:merge": "a merge",
    "tag:yaml.org,2002:value": "a default value",
}
# what the YAML 1.1 text or YAML 1.2 reads differently although pyyaml does not
_OTHER_READINGS = (
    (re.compile(r"[yYnN]"), "yes or no"),
    (re.compile(r"[-+]?0o[0-7]+"), "a number"),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), "a number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "a number of base 60"),
)


def surprise(word: str) -> str | None:
    """What another YAML reader would take the unquoted word for, or None when all agree."""
    if word in ("true", "false") or _INTEGER.fullmatch(word) or _DECIMAL.fullmatch(word):
        return None
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(word[:1], []):
        if pattern.match(word):
            return _READ_AS.get(tag, "something else")
    return next((reading for pattern, reading in _OTHER_READINGS if pattern.fullmatch(word)), None)


def read_word(word: str) -> str | int | float | bool:
    """The value of an unquoted word without a surprise; anything unclear stays text."""
    if word in ("true", "false"):
        return word == "true"
    if _INTEGER.fullmatch(word):
        return int(word)
    if _DECIMAL.fullmatch(word):
        return float(word)
    return word
