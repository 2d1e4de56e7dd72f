"""Settings for all tests: one thread each, since several run at once."""

import os

from expander_sae.machine.device import THREAD_VARIABLES

for _name in THREAD_VARIABLES:
    os.environ.setdefault(_name, "1")

import torch  # noqa: E402, the thread counts come first

if not torch.cuda.is_available():
    # Before anything imports triton: its interpreter then runs the kernels on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")
