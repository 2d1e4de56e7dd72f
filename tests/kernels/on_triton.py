"""Where Triton's programs run in these tests: on a GPU, or in its interpreter on a CPU (tiny shapes).

To be imported before anything that imports triton. A test module that imports it is skipped where neither
works.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import pytest
import torch

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if not ON_GPU and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported
pytest.importorskip("triton", reason="triton is not installed")


def _ones(out, count):
    from triton import language as tl

    for place in range(count):
        tl.store(out + place, 1)


def interpreter_counts() -> bool:
    """Whether interpreted programs can count to a number that they are given, as ours do.

    Triton before 3.7 makes an int of an array with one entry, which NumPy has refused since 2.4 (Triton's
    issue 9171).
    """
    import triton
    from triton.runtime.errors import InterpreterError

    out = torch.zeros(3, dtype=torch.int32)
    try:
        triton.jit(_ones)[(1,)](out, 2)
    except InterpreterError as error:
        if "0-dimensional" in str(error):
            return False
        raise
    return out.tolist() == [1, 1, 0]


if not ON_GPU:
    from triton.language import sum as of_triton

    if type(of_triton).__name__ != "InterpretedFunction":
        pytest.skip(
            "no GPU, and triton was imported before it could be told to interpret: set TRITON_INTERPRET=1",
            allow_module_level=True,
        )
    if not interpreter_counts():
        found = f"the interpreter of triton {version('triton')} fails beside numpy {version('numpy')}"
        pytest.skip(f"{found}; install triton 3.7 or numpy before 2.4", allow_module_level=True)
