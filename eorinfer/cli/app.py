"""The command ``eorinfer``: its groups of commands, exit codes and messages."""

import os
import re
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError

import eorinfer
from eorinfer.campaign.signals import ask_again_when_lost
from eorinfer.cli.bank import bank_app
from eorinfer.cli.contest import contest_app
from eorinfer.cli.imageflow import image_flow_app
from eorinfer.cli.report import report_app
from eorinfer.cli.run import add_run_commands
from eorinfer.cli.separate import separate_app
from eorinfer.cli.start import add_start_commands
from eorinfer.cli.stopped import what_is_left
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import NO_ROOM, cannot_write
from eorinfer.figures.style import keep_matplotlib_out_of_home

#: New names of commands, by the old one, which still works.
OLD_NAMES = {"benchmark": "contest", "field": "image-flow"}

app = App(
    name="eorinfer",
    help="Simulation-based inference for 21cm images: posteriors from the whole image beside a power-spectrum MCMC.",
    version=eorinfer.__version__,
    suppress_keyboard_interrupt=False,  # cyclopts would end in silence with exit code 130
    help_epilogue="Exit codes: 0 done, 1 failed while working, 2 wrong input. --debug shows tracebacks.",
)
add_start_commands(app)
add_run_commands(app)
for group in (report_app, contest_app, image_flow_app, separate_app, bank_app):
    app.command(group)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = [_with_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    if arguments and (new := OLD_NAMES.get(arguments[0])):
        print(f"eorinfer: `{arguments[0]}` is now called `{new}`; the old name still works", file=sys.stderr)
        arguments[0] = new
    signal.signal(signal.SIGTERM, _terminate)
    ask_again_when_lost()
    keep_matplotlib_out_of_home()
    try:
        _refuse_empty(arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        code = 0
    except InputError as error:
        code = _end(2, str(error), debug)
    except CycloptsError as error:
        code = _end(2, _wrong_line(error), debug)
    except KeyboardInterrupt:
        code = _end(1, what_is_left(arguments), debug)
    except WorkError as error:
        code = _end(1, str(error), debug)
    except OSError as error:
        code = _end(1, _refused(error), debug)
    except Exception as error:
        code = _end(1, f"{type(error).__name__}: {error} (--debug shows where)", debug)
    sys.exit(code)


def _with_home(argument: str) -> str:
    """Expand ``~`` where shells leave it alone: behind an equals sign, as in ``--out=~/run`` and ``field=~/a.npy``."""
    return re.sub(r"(?:^|(?<==))~[^/]*", lambda found: os.path.expanduser(found[0]), argument, count=1)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse empty arguments: an empty path would be the working folder, and comes from a variable that is not set.

    Raises
    ------
    InputError
        If there is one, but for ``--unit``, which may be none.
    """
    why = "is a variable of the shell not set?"
    for before, argument in zip(["eorinfer", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if not argument and before != "--unit":
            raise InputError(f"the argument after {before} is empty; {why}")
        if name.startswith("--") and name != "--unit" and equals and not value:
            raise InputError(f"{name} is empty; {why}")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wrong_line(error: CycloptsError) -> str:
    """Say what is wrong with a command line, and whose help to read."""
    command = " ".join(("eorinfer", *(error.command_chain or ())))
    text = str(error)
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument is not None:
        given = error.keyword or next((token.keyword for token in argument.tokens if token.keyword), None)
        name = argument.name.lstrip("-").upper() if argument.field_info.is_positional else argument.name
        wanted = max(argument.token_count()[0], 1)
        lacks = f"{given} needs {'a value' if wanted == 1 else f'{wanted} values'}" if given else f"{name} is missing"
        text = f"{lacks}.{text[text.find(' Did you mean') :] if ' Did you mean' in text else ''}"
    elif isinstance(error, UnusedCliTokensError):
        text = f"What is {' '.join(error.unused_tokens or ())!r} for?"
    return f"{text} `{command} --help` shows what there is"


def _refused(error: OSError) -> str:
    """Say what the operating system refused; a full disk by name."""
    if error.errno in NO_ROOM:
        return str(cannot_write(Path(error.filename or "a file"), error))
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _end(code: int, message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"eorinfer: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
