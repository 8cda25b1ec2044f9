"""The command line: `python -m debiaslib VERB`, one module a verb.

A verb's module offers `add_arguments(parser)` and `run(args) -> int` and is imported only when its verb is chosen, so
that `--help` does not wait for libraries nobody asked for. Exit codes: 0 done, 1 a fault of ours, 2 bad input, 130
stopped with Ctrl-C or by `kill`.
"""

import argparse
import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from debiaslib import __version__
from debiaslib.errors import InputError

DONE, OUR_FAULT, BAD_INPUT, STOPPED = 0, 1, 2, 130
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class Verb(NamedTuple):
    """Where a verb lives, what it does in one line, and a command line to try."""

    module: str
    summary: str
    example: str


VERBS = {
    "doctor": Verb("debiaslib.doctor", "say what is installed, which weights were found, which preset can run", "doctor"),
    "curate": Verb("debiaslib.curate", "make a face set out of a folder or zip of photographs",
                   "curate photos --out runs/faces"),
    "pretrain": Verb("debiaslib.pretrain", "train the tiny Stable Diffusion from labelled faces",
                     "pretrain --data faces.zip --out runs/tiny-sd"),
    "train": Verb("debiaslib.finetune", "fine-tune a preset on faces of a chosen mix, with or without an indicator",
                  "train --preset tiny --faces data/faces --ratio 0.25 --train-size 100 --alpha 0.05 "
                  "--indicator literal --seed 0 --out runs/adapter"),
    "mix": Verb("debiaslib.mixing", "mix the two trainings of the indicator `recalibrated` where their pictures are even",
                "mix runs/second --out runs/even"),
    "generate": Verb("debiaslib.generate", "draw faces from a prompt, a contour or a sketch, one seed a picture",
                     'generate --model runs/adapter --prompt "A human face" -n 200 --seed 0 --out runs/samples'),
    "measure": Verb("debiaslib.measure", "judge a folder of faces: fairness with intervals, quality, abstentions",
                    "measure runs/samples --reference data/faces"),
    "sweep": Verb("debiaslib.sweep", "run the whole grid of mixes and intensities, and write table, figure and report",
                  "sweep --out runs/course"),
    "rebalance": Verb("debiaslib.rebalance", "balance a generator's pictures by shifting its latents, without retraining it",
                      "rebalance --generator tiny --attributes male,dark -n 100 --out runs/balanced"),
    "audit": Verb("debiaslib.audit", "ask whom attribute classifiers and face super-resolution fail, group by group",
                  "audit classifiers --faces data/faces --split evaluate --out runs/audit"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; `argv` defaults to the process's own arguments. Returns the exit code (argparse exits by itself)."""
    argv = sys.argv[1:] if argv is None else argv
    verb = build_parser().parse_args(argv[:1]).verb
    return guarded(verb, lambda: _run(verb, argv[1:]))


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything up to the verb; what follows belongs to the verb's own parser."""
    parser = argparse.ArgumentParser(
        prog="python -m debiaslib", usage="%(prog)s VERB [options]", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Understand, measure and reduce bias in face-generating diffusion models.", epilog=_epilog())
    parser.add_argument("--version", action="version", version=f"debiaslib {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of those below; VERB --help says more")
    return parser


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """SIGTERM, of `kill` or a scheduler, stops as Ctrl-C does: worker processes end with it instead of drawing on, unseen."""
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(name: str, action: Callable[[], int]) -> int:
    """Run `action` and turn what goes wrong into one clear message on stderr and the exit code that fits."""
    try:
        with _terminated_like_ctrl_c():
            return action()
    except InputError as error:
        return _say(name, str(error), code=BAD_INPUT)
    except KeyboardInterrupt:
        return _say(name, "stopped. Run the same command again and it continues where it stopped.", code=STOPPED)
    except BrokenPipeError:  # the reader has gone, as in `... | head`: nothing is wrong, and nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if _disk_is_full(error):
            return _say(name, f"the disk is full ({_place(error)}). Free some space and run the same command again: "
                              "it continues where it stopped.", code=BAD_INPUT)
        traceback.print_exc()
        return _say(name, "this is a fault of debiaslib, not of yours. Please report it with the lines above and what "
                          "`python -m debiaslib doctor --json` prints.", code=OUR_FAULT)


def _run(name: str, rest: list[str]) -> int:
    verb = VERBS[name]
    module = importlib.import_module(verb.module)
    parser = argparse.ArgumentParser(
        prog=f"debiaslib {name}", description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example:\n  python -m debiaslib {verb.example}", formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return module.run(parser.parse_args(rest))


def _epilog() -> str:
    lines = ["verbs:", *(f"  {name:<11}{verb.summary}" for name, verb in VERBS.items()), "", "examples:"]
    lines += [f"  python -m debiaslib {verb.example}" for verb in VERBS.values()]
    return "\n".join([*lines, "", "Exit codes: 0 done, 1 a fault of ours, 2 bad input, 130 stopped with Ctrl-C."])


def _say(name: str, message: str, *, code: int) -> int:
    print(f"debiaslib {name}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _disk_is_full(error: BaseException | None) -> bool:
    """Also where it is wrapped: safetensors has an exception of its own, with the system's words but not its number."""
    if error is None:
        return False
    told = getattr(error, "errno", None) in FULL_DISK or "No space left on device" in str(error)
    return told or _disk_is_full(error.__cause__ or error.__context__)


def _place(error: Exception) -> str:
    return str(getattr(error, "filename", None) or f"working in {Path.cwd()}")


if __name__ == "__main__":
    sys.exit(main())
