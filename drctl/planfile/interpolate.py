"""`${NAME}` and `${NAME:-default}` in values, from an environment that is handed in.

Invariant: nothing is run and nothing is expanded twice: a value that comes out of the
environment is text, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from drctl.errors import UsageError
from drctl.planfile.errors import did_you_mean, quoted

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(
    rf"\$(?P<escape>\$\{{)|\$\{{(?P<name>{_NAME})(?::-(?P<default>[^{{}}]*))?\}}|(?P<broken>\$\{{)"
)


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """The text with its references replaced; `$${` stands for `${`. As in a shell the default is
    taken when the variable is not set or empty. UsageError: an unknown name, a broken reference."""

    def replace(found: re.Match[str]) -> str:
        if found["escape"]:
            return "${"
        if found["broken"]:
            raise UsageError(
                f"broken reference in {quoted(text)}",
                hint="write ${NAME} or ${NAME:-default}; $${ stands for a literal ${",
            )
        value = environment.get(found["name"], "")
        if value or (found["name"] in environment and found["default"] is None):
            return value
        if found["default"] is None:
            near = did_you_mean(found["name"], environment) if len(environment) > 12 else None
            raise UsageError(
                f"environment variable {found['name']} is not set",
                hint=near or f"set it, or write ${{{found['name']}:-default}}",
            )
        return str(found["default"])

    return _REFERENCE.sub(replace, text)
