"""Without a GPU the kernels can still be compiled for one, down to machine code; nothing runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

SCRIPT = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from expander_sae.kernels import triton_kernels as kernels, triton_layouts as layouts, triton_topk as topk
from expander_sae.kernels import triton_omp_kernels as omp

F, I, L, H = "*fp32", "*i32", "*i64", "*i16"
NAMED = dict(values=F, rows=I, panels="*bf16", bias=F, scores=F, maxima=I, listed=I, index=L, value=F,
             residual=F, out=F, order=L, starts=L, first=F, first_from=F, second=F, second_from=F,
             h=F, offset=F, centred=F, columns=F, tried=L, going=I, best=F, column=I, held=I, limit=F,
             written=F, move=F, inverse=F, dependence="fp32")
KEYS = dict(LOWEST=-(2**31))
SUMS = dict(ACCUMULATOR=tl.float32, PLACES=16, WIDTH=8)
PURSUIT = dict(ABSOLUTE=False, ACCUMULATOR=tl.float32, PLACES=16, LINES=16, CHUNK=128)
WHOLE = dict(first="i32")
JOBS = [
    (kernels.score_kernel, dict(ACCUMULATOR=tl.float32, FEATURES=256, SAMPLES=32, WIDTH=0), dict(rows=H)),
    (kernels.peak_kernel, dict(HAS_BIAS=True, RAGGED=True, ACCUMULATOR=tl.float32, BLOCK=16,
     FEATURES=256, SAMPLES=32, WIDTH=7), dict(rows=H)),
    (topk._maxima_kernel, dict(HAS_BIAS=True, LOWEST=-(2**31), BLOCK=16, TILE=64), {}),
    (topk._select_kernel, dict(KEYS, RECOMPUTE=True, HAS_BIAS=True, ACCUMULATOR=tl.float32, BLOCK=8,
     LIST_TILE=512, TILE=256), dict(rows=H)),
    (layouts.prepare_kernel, dict(HAS_OFFSET=True, SAMPLES=32, ROWS=64, FEATURES=256, BLOCK=8),
     dict(blocked=F)),
    (kernels.scan_kernel, dict(ABSOLUTE=True, ACCUMULATOR=tl.float32, FEATURES=256, SAMPLES=16, WIDTH=7),
     dict(rows=H)),
    (omp.take_kernel, dict(PURSUIT, FIND=omp.SCANNED, DENSE=False, LANES=64, PARTS=16, WIDTH=8), WHOLE),
    (omp.take_kernel, dict(PURSUIT, FIND=omp.STORED, DENSE=True, LANES=1, PARTS=1, WIDTH=32), WHOLE),
    (omp.take_kernel, dict(PURSUIT, FIND=omp.GIVEN, DENSE=False, LANES=1, PARTS=1, WIDTH=8), WHOLE),
    (kernels.correlate_at_kernel, SUMS, {}),
    (kernels.synthesize_kernel, SUMS, {}),
    (kernels.miss_kernel, dict(ACCUMULATOR=tl.float32, SIZE=2048), dict(rebuilt=F, error=F)),
    (kernels.outer_kernel, dict(SUMS, TWO=True), {}),
    (kernels.grouped_outer_kernel, dict(SUMS, TWO=True), {}),
]
for kernel, constants, changed in JOBS:
    kinds = {**NAMED, **changed}
    signature = {a: "constexpr" if a in constants else kinds.get(a, "i32") for a in kernel.arg_names}
    fixed = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, fixed)
    warps = 32 if kernel in (kernels.score_kernel, kernels.peak_kernel, kernels.scan_kernel) else 4
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert len(compiled.asm["cubin"]) > 0
    print(kernel.__name__)
"""


def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = tmp_path / "compile_all.py"
    script.write_text("import sys; sys.path.insert(0, sys.argv[1])\n" + SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(Path.cwd())], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) == 14
