"""Numbers in the tables of measurements are those of the recorded rows."""

import json
import re

import pyarrow.parquet as pq
import pytest

from tests.docs.blocks import ROOT

SCALING = "docs/scaling.md"


def rows(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def one(name, **wanted):
    """The row, or the first of several."""
    found = [row for row in rows(name) if all(row.get(key) == value for key, value in wanted.items())]
    assert found, f"{name}.json has no row of {wanted}"
    return found[0]


def cells(page, first):
    """Cells of the line of a table that begins with these cells, after them."""
    begin = "| " + " | ".join(first) + " |"
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    found = [line[len(begin) :].strip(" |").split(" | ") for line in lines if line.startswith(begin)]
    assert len(found) == 1, f"{page}: found {len(found)} lines that begin with {begin}, expected 1"
    return found[0]


def numbers(cell):
    return re.findall(r"\d[\d,]*(?:\.\d+)?", cell)


def assert_rounded(printed, value):
    """`printed` is `value`, rounded to the digits that it shows."""
    whole, _, decimals = printed.replace(",", "").partition(".")
    shown = -len(decimals) if decimals else len(whole) - len(whole.rstrip("0"))
    assert abs(float(printed.replace(",", "")) - value) <= 0.5001 * 10.0**shown, (printed, value)


def assert_cells(page, first, values):
    printed = numbers(" ".join(cells(page, first)))
    assert len(printed) == len(values), (first, printed, values)
    for each, value in zip(printed, values, strict=True):
        assert_rounded(each, value)


def test_rounding():
    assert_rounded("36", 36.03)
    assert_rounded("2,396", 2396.1)
    assert_rounded("261,000", 260_798)
    for printed, value in (("34", 36.03), ("0.28", 0.29), ("261,000", 262_000)):
        with pytest.raises(AssertionError):
            assert_rounded(printed, value)


@pytest.mark.parametrize(
    ("label", "task", "size", "variants"),
    [
        ("training step", "train_step", (576, 4608, 7), ["numba", "torch", "dense_topk", "dense_emulation"]),
        (
            "training step",
            "train_step",
            (2048, 16384, 7),
            ["numba", "torch", "dense_topk", "dense_emulation"],
        ),
        ("encode, top-k", "encode_topk", (576, 4608, 7), ["numba", "torch", "dense_topk", "dense_emulation"]),
        (
            "encode, top-k",
            "encode_topk",
            (2048, 16384, 7),
            ["numba", "torch", "dense_topk", "dense_emulation"],
        ),
    ],
)
def test_milliseconds_on_a_cpu(label, task, size, variants):
    m, n, d = size
    measured = [one("cpu", task=task, m=m, n=n, d=d, variant=each)["ms_median"] for each in variants]
    assert_cells(SCALING, [label, f"{m}, {n}, {d}"], measured)


def test_milliseconds_of_pursuit_and_of_many_features_on_a_cpu():
    variants = ["numba", "torch", "dense_gemm", "batched_qr", "sklearn"]
    measured = [one("cpu", task="omp", d=7, variant=each)["ms_median"] for each in variants]
    assert_cells(SCALING, ["OMP", "512, 4096, 7"], measured)
    text = " ".join((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").split())
    found = re.search(
        r"n = 131,072 \(m = 2048, d = 7\) takes (\d+) ms with numba and (\d+) ms with torch", text
    )
    assert found
    for printed, each in zip(found.groups(), ("numba", "torch"), strict=True):
        assert_rounded(printed, one("cpu", task="train_step", n=131072, variant=each)["ms_median"])


ENCODING = {
    "encode, top-k: expander, triton, d = 7 / 30 / 102": ("triton", (7, 30, 102)),
    "encode, top-k: expander, densified, d = 7 / 30 / 102": ("densified", (7, 30, 102)),
    "encode, top-k: dense, our selection": ("dense_topk", (2048,)),
    "encode, top-k: dense, `torch.topk`": ("dense_gemm_topk", (2048,)),
    "encode, top-k: dense mask emulated": ("dense_emulation", (2048,)),
}


@pytest.mark.parametrize("label", ENCODING)
def test_milliseconds_of_encoding_on_a_gpu(label):
    variant, columns = ENCODING[label]
    asked = {"task": "encode_topk", "m": 2048, "n": 16384, "B": 4096, "variant": variant}
    assert_cells(
        SCALING,
        [label],
        [
            one("gpu_h200", **asked, d=d, dtype=dtype)["ms_median"]
            for dtype in ("bfloat16", "float32")
            for d in columns
        ],
    )


STEPS = {
    "expander, triton, d = 7 / 30 / 102": ("triton", 1, (7, 30, 102)),
    "sixteen expanders of d = 7 in one graph": ("triton", 16, (7,)),
    "dense, five products": ("dense_products", 1, (2048,)),
}


@pytest.mark.parametrize("label", STEPS)
def test_milliseconds_of_a_step_on_a_gpu(label):
    variant, together, columns = STEPS[label]
    asked = {"task": "train_graph", "m": 2048, "n": 16384, "variant": variant, "together": together}
    measured = [one("gpu_h200", **asked, d=d, B=B)["ms_median"] for B in (256, 4096) for d in columns]
    assert_cells(SCALING, [label], measured)


@pytest.mark.parametrize(
    ("label", "variant"),
    [
        ("expander, triton", "triton"),
        ("the same, replayed as one CUDA graph", "triton_graph"),
        ("the same columns as dense ones, ours", "dense"),
        ("batched QR with whole products", "batched_qr_gemm"),
    ],
)
def test_tokens_a_second_of_pursuit_on_a_gpu(label, variant):
    measured = [one("gpu_h200", task="omp", m=m, variant=variant, B=4096)["ms_median"] for m in (2048, 512)]
    assert_cells(SCALING, [label], [4096 / (each / 1000) for each in measured])


@pytest.mark.parametrize(
    ("label", "task"),
    [("a training step", "step"), ("OMP of 64 tokens, k = 64", "omp"), ("reading the weights", "load")],
)
def test_seconds_and_memory_of_a_million_features(label, task):
    found = [one("scale", task=task, backend=backend) for backend in ("numba", "torch")]
    for cell, row in zip(cells(SCALING, [label]), found, strict=True):
        seconds, memory = numbers(cell.replace("k = 64", ""))
        assert_rounded(seconds, row["seconds"])
        assert_rounded(memory, row["peak_mb"])
        assert row.get("masks_made", 0) == 0


@pytest.mark.parametrize(
    ("label", "task"),
    [
        ("texts to the token table", "corpus"),
        ("tokens to shards", "extraction"),
        ("shards to weights", "training"),
    ],
)
def test_memory_and_time_of_many_tokens(label, task):
    """Of these the peak may grow by a tenth at most from 10⁶ to 10⁷ tokens."""
    small, large = (one("scale", task=task, tokens=tokens) for tokens in (10**6, 10**7))
    more = large["peak_mb"] / small["peak_mb"] - 1
    disk = [row["activation_bytes"] / 1e9 for row in (small, large) if row["activation_bytes"]]
    measured = [value for row in (small, large) for value in (row["peak_mb"], row["cpu_seconds"])]
    assert_cells(SCALING, [label], [*measured, 100 * more, *disk])
    assert more < 0.1


def test_errors_and_bytes_of_many_features_are_means_over_the_kept_rows():
    asked = [("none", "storage_total_bytes"), ("encoder", "relative_error"), ("omp", "relative_error")]
    asked += [("encoder", "ce_recovered"), ("encoder", "dead_fraction")]
    found = {}
    for path in sorted((ROOT / "studies" / "flagship" / "rows").glob("*_k64_int8_*.metrics.parquet")):
        kept = pq.read_table(path).to_pylist()
        values = {(row["inference"], row["metric"]): row["value"] for row in kept}
        found.setdefault((kept[0]["n"], kept[0]["d"]), []).append([values[each] for each in asked])
    assert (1 << 20, 7) in found
    for (n, d), seeds in found.items():
        *means, dead = (sum(each) / len(each) for each in zip(*seeds, strict=True))
        assert_cells("docs/howto/many_features.md", [f"{n:,}, {d}"], [len(seeds), *means, 100 * dead])
