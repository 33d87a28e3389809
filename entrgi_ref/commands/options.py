"""The command-line options that several commands share: one name and one explanation each.

Each says what the paper's value is and where it stands: in a caption of the public summary, or only
in the authors' code.
"""

from __future__ import annotations

import errno
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from ..config import GuidanceConfig

Trajectories = Annotated[
    int, typer.Option(help="K, answers per prompt. The paper's: 4 (Figure 4).")
]
DenoisingSteps = Annotated[int, typer.Option(help="T. The paper's: 128, one per new token (code).")]
GradientSteps = Annotated[
    int,
    typer.Option(
        help="M, gradient steps per denoising step; 0 is Best-of-N. The paper's: 3 (Figures 4, 5)."
    ),
]
StepSize = Annotated[
    float,
    typer.Option(help="eta, the optimiser's step; Adam's is in logits. The paper's: 0.5 (code)."),
]
Optimiser = Annotated[
    str,
    typer.Option(
        help="What makes a step of a gradient: adam (the paper's: code), or sgd (as Eq. 6 reads)."
    ),
]
Temperature = Annotated[
    float, typer.Option(help="tau, of the sampling distribution. The paper's: 0.7 (Figure 4).")
]
TopP = Annotated[
    float,
    typer.Option(help="Mass of the nucleus that tokens are drawn from. The paper's: 0.95 (code)."),
]
Order = Annotated[
    str,
    typer.Option(
        help="Which positions are committed first: entropy (the paper's: code), maskgit_plus, "
        "topk_margin, anchor or origin (at random)."
    ),
]
Method = Annotated[
    str, typer.Option(help="expectation, aps, entrgi, entrgi_tempered, or bon for no guidance.")
]
Seed = Annotated[int, typer.Option(help="Of all random choices.")]
NewTokens = Annotated[int, typer.Option(help="N, length of an answer. The paper's: 128 (code).")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of both networks: float32, bfloat16, float16, float64, or auto: bfloat16 on a GPU, "
        "which is the paper's (code), else float32."
    ),
]
Size = Annotated[
    str,
    typer.Option(
        help="Which networks, if they are not named: small (a mask predictor of 0.6B with a reward "
        "model of 0.6B) or paper (Dream-7B with one of 1.7B)."
    ),
]
DenoiserPath = Annotated[
    str | None,
    typer.Option(
        "--denoiser",
        "--dream",
        help="The mask predictor: a folder, or its id on the hub. By default that of --size.",
        show_default=False,
    ),
]
RewardPath = Annotated[
    str | None,
    typer.Option(
        "--reward",
        help="The reward model: a folder, or its id on the hub. By default that of --size.",
        show_default=False,
    ),
]


RewardWeights = Annotated[
    list[float] | None,
    typer.Option(
        "--reward-weight",
        help="The weight of each --reward in their sum, in the same order, once for each.",
        show_default=False,
    ),
]
OwnGradientSteps = Annotated[
    int | None,
    typer.Option(
        "--gradient-steps",
        help="M, gradient steps per denoising step. By default the paper's 3 (Figures 4, 5), and "
        "in the experiment gradient-steps all that it varies.",
        show_default=False,
    ),
]
OwnDenoisingSteps = Annotated[
    int | None,
    typer.Option(
        "--denoising-steps",
        help="T. By default one per new token, as the paper's 128 (code).",
        min=1,
    ),
]
Unmatched = Annotated[
    str,
    typer.Option(
        help="What tokens unknown to the reward model are read as: eos (the paper's: code) or zero."
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have torch compile the mask predictor: seconds at the start, then faster.",
    ),
]
CudaGraphs = Annotated[
    bool,
    typer.Option(
        "--cuda-graphs",
        help="Record the reward model's work on a GPU for each batch and replay it.",
    ),
]
Quantize = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize",
        metavar="[NETWORK=]BITS",
        help="Round the weights of the layers to 8bit or 4bit (extra `quantize`): of both "
        "networks, or of one, as denoiser=4bit or reward=8bit; may be given twice. Answers change. "
        "Not run on real weights. By default they stay as they are.",
        show_default=False,
    ),
]
RewardDevice = Annotated[
    str | None,
    typer.Option(
        "--reward-device",
        help="Where the reward model is, if not beside the mask predictor: cpu, cuda:1, ...",
        show_default=False,
    ),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload",
        help="Let each network's layers take half of what is free on the GPU; the others wait in "
        "the CPU's memory: slower, the same answers. Not run on a GPU yet.",
    ),
]
Attention = Annotated[
    str, typer.Option(help="Of both networks: sdpa, or eager, which is slower and takes more.")
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--reward-micro-batch",
        min=1,
        help="Trajectories that the reward model reads at a time: less memory, one more pass.",
    ),
]
VocabularyBatch = Annotated[
    int | None,
    typer.Option(
        "--vocabulary-batch",
        min=1,
        metavar="ROWS",
        help="Masked positions whose numbers per token are worked on at a time: less memory, the "
        "same answers. By default all.",
        show_default=False,
    ),
]
Authors = Annotated[
    bool,
    typer.Option(
        "--authors",
        help="Do what the authors' code does in rows 1, 3, 8 and 12 of docs/ledger.md.",
    ),
]

ExperimentName = Annotated[str, typer.Argument(help="Its name, see `list`.", show_default=False)]
Seeds = Annotated[str, typer.Option(help="Seeds, with commas. The paper's: 1,2,3 (code).")]
Prompts = Annotated[
    int, typer.Option(help="Prompts per benchmark and seed. The paper's: 64 (code).")
]
BatchSize = Annotated[
    str,
    typer.Option(
        help="Prompts in a batch, or auto for as many as fit the memory. The paper's: 4 (code)."
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        "--methods",
        "--method",
        help="Some of the experiment's methods, with commas, and weights of your own as "
        "MODULE:FUNCTION. By default all of the experiment's; main has rivals too, which are run "
        "when they are named: damped, smc, self_smc, lookahead.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The run folder. A run that is there is gone on with. By default results/EXPERIMENT, "
        "on the toy results/toy/EXPERIMENT.",
        show_default=False,
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try prompts again that failed before.")
]
OtherVersion = Annotated[
    bool,
    typer.Option(
        "--other-version",
        help="Go on with what another version or commit of the code began; its records stay.",
    ),
]
GiveUpAfter = Annotated[
    int,
    typer.Option(help="End the run after so many failures in a row; 0 goes on whatever fails."),
]
Engine = Annotated[
    str,
    typer.Option(
        help="Who computes: local, this process; or ray, actors of a Ray cluster (extra `ray`)."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="A running cluster, as HOST:PORT, or auto for the one on this machine. By default one "
        "is started here.",
        show_default=False,
    ),
]
RayActors = Annotated[
    int | None,
    typer.Option(
        "--ray-actors",
        help="How many compute. By default as many as the cluster has GPUs, or one.",
        show_default=False,
    ),
]
RunPath = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]


def names_list(text: str, option: str = "methods") -> list[str]:
    """The names of `bon,entrgi`; none of an empty text. `ValueError` for one of commas alone."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if text and not found:
        raise ValueError(f"{option}: got {text!r}, expected names with commas")
    return found


def seed_list(text: str) -> list[int]:
    """The seeds of `1,2,3`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,30}", part) for part in parts):
        raise ValueError(f"seeds: got {text!r}, expected integers with commas, as 1,2,3")
    return [int(part) for part in parts]


def quantization(given: list[str] | None) -> dict[str, str]:
    """Network -> to what its weights are rounded, of the words after `--quantize`; nothing for a
    network that stays as it is. What is said of one network counts more than what is said of both.
    """
    from ..checks import choice

    found: dict[str, str] = {}
    for one in given or []:
        network, equals, bits = one.rpartition("=")
        if equals:
            choice("quantize", network, NETWORKS)
        choice("quantize", bits, BITS)
        if network in found:
            raise ValueError(f"quantize: {network or 'that of both networks'} is given twice")
        found[network] = bits
    both = found.pop("", None)
    meant = {name: found.get(name, both) for name in NETWORKS}
    return {name: bits for name, bits in meant.items() if bits is not None}


NETWORKS = ("denoiser", "reward")
BITS = ("8bit", "4bit")


def given(context: typer.Context, name: str) -> bool:
    """Whether an option has been given, even if its default was."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


PATHS = ("--out", "--to", "--table", "--json", "--unit-tests")
"""The options that take a file or a folder."""
MODELS = ("--denoiser", "--dream", "--reward", "--reward-adapter", "--model")
NEVER_EMPTY = {
    **dict.fromkeys(PATHS, "a path (. is the current folder)"),
    **dict.fromkeys(MODELS, "a folder, or an id on the hub"),
    **dict.fromkeys(("--methods", "--method"), "names with commas"),
    "--from": "a file of prompts",
}
"""Option -> what it takes."""


def require_paths(words: Sequence[str]) -> None:
    """Raise `ValueError` for a path or name that is empty, as of a variable that is not set: it
    would be the current folder, or the default.
    """
    for option, expected in NEVER_EMPTY.items():
        if f"{option}=" in words or (option, "") in pairwise(words):
            raise ValueError(f"{option.lstrip('-')}: got '', expected {expected}")


STOPPED = 130
"""The exit code after Ctrl-C."""


class StoppedError(Exception):
    """Somebody pressed Ctrl-C. Says what is kept, and how to go on."""


@contextmanager
def stopping(kept: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into `StoppedError` with what `kept` says by then."""
    try:
        yield
    except StoppedError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if not interrupted(error):
            raise
        raise StoppedError(kept()) from error


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries may make one of another kind of it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def run_app(app: typer.Typer, kept: str = "nothing new has been written") -> None:
    """Run a command line. What goes wrong is one line and exit code 2: no traceback, no box.

    Ctrl-C is one line and exit code 130; `kept` is what it says where the command does not know.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_shown(str(message))}\n"
    if hasattr(sys.stdout, "reconfigure") and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # answers are not lost for one letter
    try:
        require_paths(sys.argv[1:])
        code = app(standalone_mode=False)
    except StoppedError as stop:
        typer.echo(f"\nstopped: {stop}", err=True)
        sys.exit(STOPPED)
    except Exception as error:
        if interrupted(error):
            typer.echo(f"\nstopped: {kept}", err=True)
            sys.exit(STOPPED)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            _fail(f"cannot write what is to be shown: {error.strerror}")  # files have names
        if isinstance(error, Warning):  # as `python -W error` wants it
            _fail(f"a warning is to be an error: {' '.join(str(error).split())}")
        if isinstance(error, ValueError | OSError):
            _fail(" ".join(str(error).split()))
        if isinstance(error, TOO_MUCH) or "can't allocate memory" in str(error):
            _fail(f"out of memory, or of what numbers can hold: {type(error).__name__}: {error}")
        # What is wrong with the words of the command line has a message of its own.
        if not hasattr(error, "format_message"):
            raise
        _fail(" ".join(str(error.format_message()).split()))
    if code == STOPPED:  # what the library makes of Ctrl-C that the command did not expect
        typer.echo(f"stopped: {kept}", err=True)
    sys.exit(code if isinstance(code, int) else 0)


TOO_MUCH = (MemoryError, OverflowError, RecursionError)
"""What is raised for sizes of which nobody has thought."""
LONGEST_MESSAGE = 1000


def _fail(message: str) -> NoReturn:
    if message:  # there is none where the help has been shown instead
        typer.echo(f"error: {_shown(message)}", err=True)
    sys.exit(2)


def _shown(message: str) -> str:
    """In one line: what is quoted of a file may be long, or hold what moves the cursor of a
    terminal.
    """
    line = " ".join(message[: 2 * LONGEST_MESSAGE].split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]} ..."


def guidances(
    methods: Sequence[str], gradient_steps: int, step_size: float, optimiser: str, dtype: str
) -> dict[str, GuidanceConfig]:
    """Method -> the settings that the options of these names stand for."""
    from ..checks import integer
    from ..config import GuidanceConfig
    from .own_weights import named

    names, own = named(methods, METHODS, option="method")
    integer("gradient_steps", gradient_steps, minimum=0)
    base = GuidanceConfig(
        steps=gradient_steps, step_size=step_size, dtype=guidance_dtype(dtype), optimiser=optimiser
    )
    return {
        name: base.but(steps=0) if name == "bon" else base.but(weight=own.get(name, name))
        for name in names
    }


def require_precision(dtype: str, authors: bool, gradient_steps: int) -> None:
    """Raise `ValueError` for logits that would be guided in float16, in which Adam cannot step."""
    if authors and dtype == "float16" and gradient_steps:
        raise ValueError(
            "dtype: got 'float16' with --authors, which guides the logits in the networks' dtype: "
            "there Adam's epsilon of 1e-8 is 0; give bfloat16, as the authors, or float32"
        )


def guidance_dtype(dtype: str) -> str:
    """The precision of the guided logits: float32 for networks of 16 bits too."""
    return "float64" if dtype == "float64" else "float32"


METHODS = ("bon", "expectation", "aps", "entrgi", "entrgi_tempered")
