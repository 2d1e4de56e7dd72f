"""Settings for all tests: one thread each, since several run at once."""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch  # noqa: E402, the thread counts come first

if not torch.cuda.is_available():
    # Before anything imports triton: its interpreter then runs the kernels on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")
