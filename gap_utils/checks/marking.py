"""Mark the lessons that learners hand in: `python -m gap_utils.checks` prints what is found here.

Only the cells that an answer needs are run, from top to bottom: a training, a lab or a broken cell
elsewhere costs nothing. The cells with checks are not among them. An answer is judged by the check
of this package, loaded anew behind the learner's code.

This is no sandbox. The learner's code runs as the user who marks, in the process that judges it;
whoever sets out to can fool it, or delete files.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getsource
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL
from time import monotonic
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from gap_utils import checks
from gap_utils.checks.calling import NOT_ATTEMPTED
from gap_utils.checks.cells import cells_needed, names_in, parse

# the answer and the check of each exercise of a lesson, in the order of its exercises
EXERCISES = {
    "00": {"numbers_per_map": "check_numbers_per_map"},
    "01": {
        "my_gap": "check_gap",
        "my_max_pool": "check_max_pool",
        "gap_after_change": "check_gap_after_change",
        "my_output_size": "check_output_size",
        "my_min_pool": "check_min_pool",
        "gap_from_windows": "check_gap_from_windows",
    },
    "02": {
        "flatten_parameters": "check_flatten_parameters",
        "my_head": "check_gap_head",
        "keras_to_torch": "check_keras_to_torch",
    },
    "03": {
        "pool_any_batch": "check_pool_any_batch",
        "pool_channels_last": "check_pool_channels_last",
        "pool_any_size": "check_pool_any_size",
        "pool_any_axes": "check_pool_any_axes",
        "pool_then_linear": "check_pool_then_linear",
        "any_size_network": "check_any_size_network",
    },
    "04": {
        "loss_floor": "check_loss_floor",
        "mended_loss": "check_mended_loss",
        "accuracy": "check_accuracy",
        "head_claims": "check_head_claims",
    },
    "05": {
        "supported_claims": "check_supported_claims",
        "shift_step": "check_shift_step",
        "gmp_gradient": "check_gmp_gradient",
        "canvas_sizes": "check_canvas_sizes",
    },
    "06": {
        "maps_of": "check_maps_of",
        "halving_layer": "check_halving_layer",
        "winning_maps": "check_winning_maps",
    },
    "07": {
        "cam_by_einsum": "check_cam",
        "maximum_is_different": "check_max_counterexample",
        "families": "check_cam_families",
        "iou": "check_iou",
    },
    "08": {
        "gap_locations": "check_gap_locations",
        "features_of": "check_features_of",
        "mean_of_patches": "check_mean_of_patches",
        "new_head": "check_new_head",
        "refused_batches": "check_single_batches",
    },
    "09": {
        "twin_maps": "check_gap_twins",
        "my_gem": "check_gem",
        "masked_mean": "check_masked_mean",
        "squeeze_and_excite": "check_squeeze_excitation",
    },
}
LONGEST = 2000  # letters of a message, which may hold what a learner's code says
SETUP_SECONDS = 120  # for a kernel to start and load PyTorch, on a busy machine


@dataclass(frozen=True)
class Mark:
    """What is said of one exercise."""

    number: int
    name: str  # of the answer
    result: str  # "passed", "not right yet", "not attempted", "stopped", or which cell failed
    message: str = ""  # why
    check_changed: bool = False  # whether the learner's own check is another one


class StoppedError(Exception):
    """The learner's code took too long, or ended its process; the text says which."""


def read_answers(path: Path) -> list[str]:
    """Read the code of a lesson, cell by cell, without its solutions.

    Raises:
        ValueError: if the file is no notebook, or cannot be read.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected a notebook, or a folder of them, got a folder of none")
    try:
        cells = [
            (
                cell["cell_type"],
                # half an emoji cannot be sent
                "".join(cell["source"]).encode(errors="replace").decode(),
                {*cell["metadata"].get("tags", [])},
            )
            for cell in json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: expected a notebook of format 4, got another file") from None
    except OSError as error:
        raise ValueError(f"{path}: expected a notebook, got: {error.strerror}") from None
    code, behind = [], False
    for kind, source, tags in cells:
        behind = behind or (kind == "markdown" and "## Solutions" in source)
        # it has the name of the learner's answer; some programs lose the tags
        solution = "solution" in tags or (behind and source.startswith("# Solution of exercise"))
        if kind == "code" and not solution:
            code.append(source)
    return code


def lesson_of(cells: list[str]) -> str | None:
    """Say which lesson it is by the answers and checks in it; None for none of ours.

    A file may have another name by now, and Colab keeps no ids of cells.
    """
    text = "\n".join(cells)
    found = {
        lesson: sum(f"def {name}(" in text for name in names)
        + sum(f"{check}(" in text for check in names.values())
        for lesson, names in EXERCISES.items()
    }
    best = max(found, key=found.__getitem__)
    return best if found[best] else None


def original_check(name: str) -> Any:
    """Load a check anew, past what a learner's code may have put in its place.

    An import in the learner's code gets another copy, so it cannot change this one either.
    """

    def forget() -> None:
        for module in [each for each in sys.modules if each.partition(".")[0] == "gap_utils"]:
            del sys.modules[module]

    forget()
    check = getattr(importlib.import_module("gap_utils.checks"), name)
    forget()
    return check


def mark(path: Path, seconds: float = 60) -> tuple[str, Iterator[Mark]]:
    """Say which lesson a file is, and mark its exercises one by one.

    Args:
        path: of a notebook.
        seconds: for the cells and the check of one exercise; what takes longer is killed.

    Raises:
        ValueError: if the file is no notebook, or none of the lessons, or cannot be read.
    """
    cells = read_answers(path)
    lesson = lesson_of(cells)
    if lesson is None:
        raise ValueError(
            f"{path}: expected one of the lessons {min(EXERCISES)} to {max(EXERCISES)}, got a "
            "notebook with none of their exercises"
        )
    return lesson, _marks(cells, EXERCISES[lesson], seconds)


def _marks(cells: list[str], exercises: dict[str, str], seconds: float) -> Iterator[Mark]:
    with _Kernel() as kernel:
        for number, (name, check) in enumerate(exercises.items(), start=1):
            try:
                result, message = _judge(kernel, cells, name, check, seconds)
            except StoppedError as error:
                result, message = "stopped", str(error)
            yield Mark(number, name, result, message, _is_changed(cells, name, check))


def _judge(
    kernel: _Kernel, cells: list[str], name: str, check: str, seconds: float
) -> tuple[str, str]:
    """Run what an answer needs, and then the check."""
    kernel.begin(seconds)
    failed = None
    for place in cells_needed(cells, name):
        # after an error too, as a learner does: what the cell had set before is there
        reply = kernel.run(cells[place])
        if reply["status"] != "ok" and failed is None:
            names = names_in(cells[place])
            which = "its cell" if name in names.sets | names.changes else "a cell before it"
            what = re.sub(r"\(\d+\.py, ", "(", reply["evalue"])  # what IPython calls a cell
            failed = f"{which} failed", f"{reply['ename']}: {what}"[:LONGEST]
    if kernel.run("", asked=f"({name}, 0)[1]")["status"] != "ok":
        return failed or ("not attempted", f"there is no {name}")
    said = kernel.run("", asked=_question(name, check))
    if said["status"] != "ok":  # a check turns every Exception into words; this is another one
        return "not right yet", f"the check stopped with {said['ename']}: {said['evalue']}"
    try:
        passed, message = json.loads(ast.literal_eval(said["data"]["text/plain"]))
    except (KeyError, ValueError, SyntaxError, TypeError):
        return "stopped", "what the check said could not be read"  # IPython shows it otherwise
    if passed is True:
        return "passed", ""
    if failed:
        return failed
    if message == NOT_ATTEMPTED.message:
        return "not attempted", ""
    return "not right yet", message.removeprefix("✗").strip()


def _question(name: str, check: str) -> str:
    """An expression that gives what the original check says; it leaves no name behind."""
    code = f"""import importlib, json, sys
from typing import Any

sys.path[:] = {sys.path!r}
{getsource(original_check)}
feedback = original_check({check!r})(answer)
said = json.dumps([feedback.passed, feedback.message[:{LONGEST}]])
"""
    return f"(lambda names: (exec({code!r}, names), names['said'])[1])({{'answer': {name}}})"


def _is_changed(cells: list[str], name: str, check: str) -> bool:
    """Whether no cell calls the check as the lesson does, or some cell sets a name of it."""
    calls, redefined = 0, False
    for cell in cells:
        try:
            statements = parse(cell)
        except (SyntaxError, ValueError, RecursionError):
            continue
        calls += [ast.unparse(s) for s in statements] in (
            [f"checks.{check}({name})"],
            [f"{check}({name})"],
        )
        for node in (node for statement in statements for node in ast.walk(statement)):
            target = getattr(node, "attr", None) or getattr(node, "id", None)
            stored = isinstance(getattr(node, "ctx", None), ast.Store)
            made = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == check
            redefined |= made or (stored and target in (check, "checks", "Feedback"))
    return redefined or not calls


class _Kernel:
    """A process for a learner's code, started when it is needed, and again when it was killed."""

    def __init__(self):
        self.folder = self.manager = self.client = None
        self.seconds = self.deadline = 0.0

    def __enter__(self) -> _Kernel:
        return self

    def __exit__(self, *error: Any) -> None:
        self.kill()

    def begin(self, seconds: float) -> None:
        """Have a process, and give what follows so many seconds."""
        if self.manager is None:
            self.start()
        self.limit(seconds)

    def limit(self, seconds: float) -> None:
        """Say how long what follows may take."""
        self.seconds, self.deadline = seconds, monotonic() + seconds

    def run(self, code: str, asked: str = "") -> dict[str, Any]:
        """Run code; return its reply, or that of an expression that is asked for behind it."""
        sent = self.client.execute(
            code,
            store_history=bool(code),
            user_expressions={"asked": asked} if asked else {},
            allow_stdin=False,  # input() is an error
            stop_on_error=False,  # the next cell is run after an error too
        )
        while True:
            try:
                reply = self.client.get_shell_msg(timeout=0.2)
            except Empty:
                self.check_that_it_goes_on()
            else:
                if reply["parent_header"].get("msg_id") == sent:
                    content = reply["content"]
                    failed = content["status"] != "ok" or not asked
                    return content if failed else content["user_expressions"]["asked"]

    def start(self) -> None:
        """Start this Python in an empty folder, and load the package."""
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.manager = KernelManager()
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=command)  # not what is installed for the user
        self.manager.start_kernel(
            cwd=self.folder.name,
            env={
                "OMP_NUM_THREADS": "1",  # the checks are small, and marks may be made side by side
                **os.environ,
                "IPYTHONDIR": self.folder.name,  # no history, no settings of the user
                "PYTHONPATH": os.pathsep.join([str(Path(checks.__file__).parents[2]), *sys.path]),
            },
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        self.client = self.manager.client()
        # what the code prints is not asked for, so it cannot pile up here
        self.client.start_channels(iopub=False, stdin=False, hb=False)
        self.limit(SETUP_SECONDS)
        try:
            reply = self.run("import gap_utils.checks")
        except StoppedError as error:
            raise RuntimeError(f"expected a kernel that starts (ipykernel), but {error}") from None
        if reply["status"] != "ok":
            raise RuntimeError(f"expected a kernel that loads gap_utils, got {reply['evalue']}")

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self.manager is not None:
            self.client.stop_channels()
            self.manager.shutdown_kernel(now=True)
            self.folder.cleanup()
        self.manager = None

    def check_that_it_goes_on(self) -> None:
        """Raise StoppedError where the process has ended, or its time is over."""
        if not self.manager.is_alive():
            self.kill()
            raise StoppedError("the process ended before the code did")
        if monotonic() > self.deadline:
            self.kill()
            raise StoppedError(f"the code did not end within {self.seconds:g} s")
