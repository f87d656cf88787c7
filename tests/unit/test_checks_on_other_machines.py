"""Right answers and solutions pass on processors and numbers of threads other than ours.

Another processor adds float32 numbers in another order. PyTorch and oneDNN choose their kernels
when they are loaded, so each kind of processor has a process of its own.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from copy import deepcopy
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[2]
MACHINES = {
    "without AVX": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
    },
}


def right_answers():
    """The check and the answer of every right answer of these tests and every solution."""
    import test_checks
    import test_checks_of_backbones as backbones

    from gap_utils import checks

    for check, answers in test_checks.RIGHT.items():
        yield from ((check, answer) for answer in answers)
    yield checks.check_new_head, backbones.behind()
    yield checks.check_new_head, backbones.head(backbones.mean, "norm", "linear")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "solution" in cell["metadata"].get("tags", []):
                yield solution("".join(cell["source"]))


def solution(source: str):
    """Read the function and the check out of a cell `def answer…`, `check(answer)`."""
    import math

    import torch
    import torch.nn.functional as F
    from torch import nn

    from gap_utils import checks

    names = {"torch": torch, "nn": nn, "F": F, "math": math, "checks": checks, **vars(checks)}
    tree = ast.parse(source)
    call = tree.body.pop().value
    exec(compile(tree, "solution", "exec"), names)
    return eval(ast.unparse(call.func), names), names[call.args[0].id]


def channels_last(grade):
    """Let a check hand over modules whose weights are channels-last in memory."""
    import torch
    from torch import nn

    def wrapped(answer, *ways, cases, **rest):
        cases = deepcopy(cases)  # as a whole: a layer of a network stays a layer of it
        for argument in chain(*cases):
            if isinstance(argument, nn.Module):
                argument.to(memory_format=torch.channels_last)
        return grade(answer, *ways, cases=cases, **rest)

    return wrapped


def main() -> None:
    """Print what a check says of a right answer that does not pass."""
    import torch

    from gap_utils.checks import grading

    print(torch.backends.cpu.get_cpu_capability())
    answers = list(right_answers())
    assert len(answers) > 110
    for threads, grade in ((1, grading.grade), (2, channels_last(grading.grade))):
        torch.set_num_threads(threads)
        for check, answer in answers:
            with patch.object(inspect.getmodule(check), "grade", grade):
                feedback = check(answer)
            if not feedback.passed:
                print(check.__name__, threads, feedback)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_right_answers_pass_on(machine):
    told = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    told |= MACHINES[machine]  # threads that wait actively take minutes on a busy machine
    paths = [ROOT, ROOT / "tests" / "unit", os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **told, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    first, *failures = run.stdout.splitlines()
    if first.lower() != told["ATEN_CPU_CAPABILITY"]:
        pytest.skip(f"this processor calls itself {first}")  # not made by Intel or AMD, or older
    assert failures == []


if __name__ == "__main__":
    main()
