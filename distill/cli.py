"""The command `distill`: its parser, its exit codes, and what it says on the console."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence

from distill.commands import adapt, compare, evaluate, listing, train
from distill.commands.options import DONE
from distill.errors import CheckFailed, DistillError

__all__ = ["main"]

_EXPORT_COMMANDS = "export.commands"  # that package stands above this one, and so is found by name

_CHECK_FAILED, _WRONG_INPUT, _INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check failed, 2 wrong input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["distill", *(sys.argv[1:] if arguments is None else arguments)])
    log, console = logging.getLogger("distill"), _Console(logging.INFO)
    log.setLevel(logging.DEBUG)  # the console takes what matters, a run's log.txt takes all
    log.addHandler(console)
    try:
        return int(options.run(options))
    except CheckFailed as error:
        return _fail(str(error), _CHECK_FAILED)
    except DistillError as error:
        return _fail(str(error), _WRONG_INPUT)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "stopped", _INTERRUPTED)
    except (RuntimeError, MemoryError) as error:
        # torch's own error, which is not imported here, or what its allocator for the processor says
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not known and "alloc_cpu" not in str(error):
            raise
        remedies = "smaller --size, data.crop, training.batch or distillation.memory_crop, or --device cpu"
        return _fail(f"The device's memory is full; try a {remedies}.", _WRONG_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone
        return DONE
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"The system refused{where}: {error.strerror or error}.", _WRONG_INPUT)
    finally:
        log.removeHandler(console)


class _Console(logging.Handler):
    """Lines on standard error that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"distill: {sentence}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distill", description="Distil video super-resolution networks for phones.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (train, adapt, compare, evaluate, importlib.import_module(_EXPORT_COMMANDS), listing):
        module.add_commands(commands)
    return parser
