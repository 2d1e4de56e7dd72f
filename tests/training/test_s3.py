"""Shards in an S3 store, by a server on this machine: equality with files, killed transfers, cut objects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.receipts import write_receipt
from expander_sae.activations.shards import Rows, Shard, write_shard
from expander_sae.cli.main import main
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.remote import names_in
from expander_sae.training.shard_pool import ShardPool
from tests.training.small_data import TOKENS, activations

ThreadedMotoServer = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer
S3FileSystem = pytest.importorskip("s3fs", reason="s3fs is not installed").S3FileSystem

SHARD = 80
FOLDER = "s3://activations/tiny"
PART = 5 << 20
"""Bytes of the smallest part of an upload in S3."""

WRITER = """
import os, signal, sys
import numpy as np
import s3fs.core
from expander_sae.activations.shards import Rows, write_shard

s3fs.core.calculate_chunksize = lambda *size, **options: {part}
call, parts = s3fs.core.S3FileSystem._call_s3, []

async def interrupted(self, method, *arguments, **options):
    if method == "upload_part":
        parts.append(method)
        if len(parts) == 2:
            {action}
    return await call(self, method, *arguments, **options)

s3fs.core.S3FileSystem._call_s3 = interrupted
s3fs.core.S3FileSystem.max_concurrency = 1
token = np.arange(3 * {part} // 4096)
values = np.zeros((len(token), 1024), np.float32)
rows = Rows(token.astype("i4"), token.astype("i2"), token.astype("i4"), values)
write_shard(sys.argv[1], rows, dict(split="train"))
"""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Any]:
    """The store of an empty bucket; processes that are started find it too."""
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            patch.setenv(f"AWS_{name}", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        S3FileSystem.clear_instance_cache()
        store = S3FileSystem(use_listings_cache=False)
        store.mkdir("activations")
        yield store
        S3FileSystem.clear_instance_cache()
        served.stop()


def written(folder: Path | str) -> list[str]:
    paths = []
    for number, start in enumerate(range(0, TOKENS, SHARD)):
        token = np.arange(start, min(start + SHARD, TOKENS))
        columns = (token // 8).astype("i4"), (token % 8).astype("i2"), token.astype("i4")
        about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": number}
        about |= {"shard_tokens": SHARD, "lineage": lineage("extraction")}
        paths.append(f"{folder}/train-{number:05d}.parquet")
        write_shard(paths[-1], Rows(*columns, activations()[token]), about)
    return paths


@pytest.fixture(scope="module")
def remote(server: Any) -> list[str]:
    return written(FOLDER)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    written(folder)
    return folder


def test_shards_there_are_the_bytes_of_shards_here(server: Any, remote: list[str], local: Path) -> None:
    assert names_in(FOLDER) == names_in(local)
    for path in remote:
        assert server.cat(path) == (local / path.rsplit("/", 1)[-1]).read_bytes()


def test_training_on_them_ends_at_equal_bytes(remote: list[str], local: Path, tmp_path: Path) -> None:
    options = "--n 24 --d 3 --k 3 --steps 40 --set batch_size=10 --stream 64 --device cpu"
    for name, folder in (("here", str(local)), ("there", FOLDER)):
        main(f"train {folder} {options} --out {tmp_path}/{name}.safetensors".split())
    assert (tmp_path / "here.safetensors").read_bytes() == (tmp_path / "there.safetensors").read_bytes()


def test_a_pool_is_joined_from_receipts(remote: list[str], local: Path, tmp_path: Path) -> None:
    receipts = []
    for path in remote:
        receipts.append(tmp_path / path.rsplit("/", 1)[-1].replace(".parquet", ".json"))
        write_receipt(receipts[-1], path, Shard(path).about)
    found, expected = tmp_path / "found.json", tmp_path / "expected.json"
    build_pool(receipts, "train", found.with_suffix(".f32"), found)
    build_pool(sorted(local.iterdir()), "train", expected.with_suffix(".f32"), expected)
    assert np.array_equal(Pool.open(found).activations, Pool.open(expected).activations)
    assert Pool.open(found).sha256 == Pool.open(expected).sha256
    assert ShardPool(tmp_path).digest() == ShardPool(local).digest() == ShardPool(FOLDER).digest()
    write_receipt(receipts[1], remote[0], Shard(remote[1]).about)
    with pytest.raises(UserError, match=r"tiny/train-00000\.parquet: found another shard than its receipt"):
        Shard(receipts[1])


@pytest.mark.parametrize(
    ("action", "code", "pending"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, 1),
        ("raise OSError('the network is gone')", 1, 0),
    ],
)
def test_a_transfer_that_ends_midway_leaves_nothing(
    server: Any, action: str, code: int, pending: int
) -> None:
    """Neither a new object nor half of one in the place of an old one, by a real process and its parts."""
    folder, bucket = f"activations/killed{pending}", "activations"
    old = f"s3://{folder}/train-00001.parquet"
    written(f"s3://{folder}/old")
    server.copy(f"{folder}/old/train-00001.parquet", old)
    before = server.cat(old)
    for number in (0, 1):
        program = WRITER.format(part=PART, action=action)
        command = [sys.executable, "-c", program, f"s3://{folder}/train-0000{number}.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        assert done.returncode == code, done.stderr
    assert code < 0 or "train-00001.parquet: cannot be written (OSError: the network is gone)" in done.stderr
    assert names_in(f"s3://{folder}") == ["train-00001.parquet"] and server.cat(old) == before
    begun = server.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    assert sum(each["Key"].startswith(folder.removeprefix("activations/")) for each in begun) == 2 * pending
    with pytest.raises(UserError, match=r"found shards \[1\], expected train-00000\.parquet"):
        ShardPool(f"s3://{folder}")


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.0])
def test_a_cut_object_is_refused_by_its_address(server: Any, local: Path, kept: float) -> None:
    content = (local / "train-00000.parquet").read_bytes()
    server.pipe("activations/cut/train-00000.parquet", content[: int(kept * len(content))])
    for read in (Shard, lambda path: ShardPool(path.rsplit("/", 1)[0])):
        with pytest.raises(UserError, match=r"^s3://activations/cut/train-00000\.parquet: .*shard|cut short"):
            read("s3://activations/cut/train-00000.parquet")


def test_one_changed_byte_is_found_when_its_shard_is_read(server: Any, local: Path) -> None:
    for path in local.iterdir():
        server.put_file(str(path), f"activations/altered/{path.name}")
    content = bytearray((local / "train-00002.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    server.pipe("activations/altered/train-00002.parquet", bytes(content))
    with pytest.raises(
        UserError, match=r"^s3://activations/altered/train-00002\.parquet: altered or cut short"
    ):
        ShardPool("s3://activations/altered")[0:TOKENS]


def test_what_is_not_there_is_named(server: Any) -> None:
    with pytest.raises(UserError, match=r"^s3://activations/none/train-00000\.parquet: no such file"):
        Shard("s3://activations/none/train-00000.parquet")
    with pytest.raises(UserError, match=r"^s3://activations/none: found no shard"):
        ShardPool("s3://activations/none")
    with pytest.raises(UserError, match=r"^s3://elsewhere/train-00000\.parquet: cannot be written"):
        write_shard(
            "s3://elsewhere/train-00000.parquet", next(Shard(written("memory://m")[0]).row_groups()), {}
        )
