"""The edge of the program: runs a command, and turns whatever happens into lines and an exit code.

Invariant: no traceback reaches a user's screen unless DRCTL_DEBUG is set, every failure is one
line and perhaps a hint, and a signal lets clean-up run before the process ends with 130.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import click

from drctl.cli.output import Format, Output
from drctl.cli.session import Session
from drctl.cli.signals import stop_on_signals
from drctl.clock import SystemClock
from drctl.errors import DrctlError, ExitCode, InterruptedRunError, UsageError

COMPLETE_VARIABLE = "_DRCTL_COMPLETE"


def run(root: click.Group, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command line; the exit code."""
    out = Output(environment)
    session = Session(out, SystemClock(), environment)
    instruction = environment.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": session}, "drctl", COMPLETE_VARIABLE, instruction)
    try:
        with stop_on_signals(out):
            code = _invoke(root, arguments, session)
            out.finish(code)
            return int(code)
    except click.exceptions.Exit as exc:  # --help and --version have said everything
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return int(ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        _keep_own_exit_code()
        error: DrctlError = InterruptedRunError("interrupted")
    except click.ClickException as exc:
        # click stops at the first wrong word: the format may have been asked for behind it
        if _asks_for_json(arguments, environment):
            out.format = Format.JSON
        error = _as_usage_error(exc)
    except DrctlError as exc:
        _show_traceback_if_debugging(environment)
        error = exc
    except Exception as exc:  # noqa: BLE001  the CLI boundary: a defect still ends as one line
        error = _as_defect(exc, environment)
    out.error(error)
    return int(error.exit_code)


def _keep_own_exit_code() -> None:
    """CPython remembers an interrupt that passed through an exec() of a string (dataclasses do that while
    they are imported), and at exit kills itself with SIGINT although it was handled. The next exec() of a
    string clears that (Python/pythonrun.c, `unhandled_keyboard_interrupt`)."""
    exec("", {})  # noqa: S102


def _invoke(root: click.Group, arguments: Sequence[str], session: Session) -> ExitCode:
    # not root.main(): it takes an EOFError from anywhere for a Ctrl-D
    with root.make_context("drctl", list(arguments), obj=session) as ctx:
        code = root.invoke(ctx)
    return ExitCode.OK if code is None else ExitCode(code)


def _as_usage_error(exc: click.ClickException) -> DrctlError:
    message = " ".join(exc.format_message().split()).rstrip(".")  # click breaks lines
    hint = None
    possibilities = getattr(exc, "possibilities", None)
    if possibilities:
        message = str(exc.message).rstrip(".")
        hint = f"did you mean {' or '.join(possibilities)}?"
    elif isinstance(exc, click.UsageError) and exc.ctx is not None:
        hint = f"see: {exc.ctx.command_path} --help"
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _asks_for_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    words = [*arguments]
    pairs = zip(words, [*words[1:], ""], strict=True)
    asked = [value for word, value in pairs if word == "--output"]
    asked += [word.partition("=")[2] for word in words if word.startswith("--output=")]
    return (asked or [environment.get("DRCTL_OUTPUT", "")])[-1] == Format.JSON.value


def _show_traceback_if_debugging(environment: Mapping[str, str]) -> None:
    if environment.get("DRCTL_DEBUG"):
        import traceback

        traceback.print_exc()


def _as_defect(exc: Exception, environment: Mapping[str, str]) -> DrctlError:
    import tempfile  # with 8 ms a seventh of what --help takes
    import traceback

    first_line = (str(exc).splitlines() or [""])[0]
    message = f"this is a defect in drctl: {type(exc).__name__}: {first_line}"
    if environment.get("DRCTL_DEBUG"):
        traceback.print_exc()
        return DrctlError(message)
    try:
        descriptor, path = tempfile.mkstemp(prefix="drctl-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w") as file:
            traceback.print_exc(file=file)
    except OSError:
        return DrctlError(message, hint="run it again with DRCTL_DEBUG=1 to see where")
    return DrctlError(message, hint=f"where it happened is written in {path}")
