"""The entry point: finds the command, runs it, and turns every error into one or two lines and the right exit status."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn

import click

from netsens.cli.messages import Terminated, say

COMMANDS = {
    "inspect": "Layers, parameters, inputs and outputs of a model, and which operators have exact rules.",
    "grad": "The gradient of an output or a layer by inputs or parameters.",
    "jacobian": "The Jacobian of an output or a layer, at a cost that follows its structure.",
    "hessian": "Second derivatives of a scalar, or their product with a vector.",
    "check": "Prove gradients against finite differences.",
    "export": "Write the gradient model as plain ONNX.",
    "ops": "All operators with their status, or the verdict on a model.",
    "cache": "Gradient graphs that were kept: how many, how large, and away with them.",
}


class Commands(click.Group):
    """Commands whose modules are imported when they are called, and not for the list of them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"netsens.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command '{args[0]}'; {hint}")
        return super().resolve_command(context, args)


def _version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from netsens import __version__

        click.echo(f"netsens {__version__}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def netsens() -> None:
    """Exact gradients, Jacobians and sensitivities of ONNX models.

    netsens appends gradient nodes to a model by automatic differentiation and runs the result on onnxruntime. Results go to files or standard
    output, notes to standard error.
    """


INTERRUPTED = 130
TERMINATED = 143  # 128 and the number of SIGTERM


def main() -> NoReturn:
    """Runs the command line and exits with its status."""
    status = run(sys.argv[1:])
    if status != INTERRUPTED and (threading.active_count() > 1 or "multiprocessing" in sys.modules):
        sys.exit(status)
    # An interrupted run doesn't wait for a thread that waits for an input. And taking NumPy and onnxruntime down module by module takes a tenth as long as the whole of a small run; nothing is left for it to do.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or gone
            stream.flush()
    os._exit(status)


def run(arguments: list[str]) -> int:
    """The exit status of one command line."""
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        result: Any = netsens.main(arguments, prog_name="netsens", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except Terminated:
        say("netsens: terminated; what was written is whole.")
        return TERMINATED
    except (KeyboardInterrupt, click.Abort):
        say("netsens: interrupted; what was written is whole.")
        return INTERRUPTED
    except BrokenPipeError:
        _close_quietly()
        return 0
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # older clicks show the help themselves
            error.show()
            return 2
        context = getattr(error, "ctx", None)
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        say(f"netsens: error: {error.format_message()}{hint}")
        return 2
    except Exception as error:
        return _failed(error, verbose)


def _failed(error: Exception, verbose: bool) -> int:
    from netsens.errors import NetsensError

    if verbose:
        import traceback

        traceback.print_exc()
    if isinstance(error, NetsensError):
        say(f"netsens: error: {error}")
        return error.exit_status
    if isinstance(error, MemoryError):
        say("netsens: error: out of memory; ask for less at once (fewer tensors, smaller batches), or set --memory-limit.")
        return 1
    if isinstance(error, OSError):
        say(f"netsens: error: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}.")
        return 1
    say(f"netsens: error: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    if not verbose:
        say("netsens: this is a bug in netsens; --verbose shows where.")
    return 1


def _close_quietly() -> None:
    """A reader such as `head` has gone: nothing more is written, not even at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
