"""Where Triton's programs run in these tests: on a GPU, or in its interpreter on a CPU (tiny shapes).

To be imported before anything that imports triton. A test module that imports it is skipped where neither
works.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if not ON_GPU and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported
pytest.importorskip("triton", reason="triton is not installed")
if not ON_GPU:
    from triton.language import sum as of_triton

    if type(of_triton).__name__ != "InterpretedFunction":
        pytest.skip(
            "no GPU, and triton was imported before it could be told to interpret: set TRITON_INTERPRET=1",
            allow_module_level=True,
        )
