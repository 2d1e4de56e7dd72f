"""Publishing and fetching, on a folder in place of the Hub and by the real client on a local server."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import hub
from expander_sae.measurements.tables import write_metrics
from expander_sae.study.run import LEFT_OUT
from tests.interop.problems import K, M, N, activations, reference, small

SPEC: dict[str, Any] = {
    "model": "tiny",
    "corpus": "text",
    "layer": 3,
    "recipe": "standard",
    "support": "expander",
}
SPEC |= {"encoder": "tied", "m": M, "n": N, "d": 5, "k": K, "train_tokens": 4000, "steps": 60, "seed": 0}


def rows(spec: dict[str, Any], **measured: float) -> list[dict[str, Any]]:
    where = {"relative_error": ("encoder", "test"), "ce_recovered": ("encoder", "ce")}
    found = []
    for metric, value in measured.items():
        inference, split = where.get(metric, ("none", "none"))
        found.append(
            LEFT_OUT | spec | {"inference": inference, "split": split, "metric": metric, "value": value}
        )
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    sae = small(spec=SPEC, norm_limit=7.5)
    sae.save(folder / "weights.safetensors")
    write_metrics(rows(SPEC, relative_error=0.4321, ce_recovered=0.8765), folder / "metrics.parquet")
    (folder / "secret.txt").write_text("not of the run")
    return folder


class Folder:
    """The client's interface on a local folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, []  # type: ignore[var-annotated]

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(
        self, *, repo_id: str, folder_path: str, commit_message: str, revision: str | None
    ) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"hub/{repo_id}/commit/1"

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, local_dir: str | None, allow_patterns: list[str]
    ) -> str:
        if local_dir is None:
            return str(self.root / repo_id)
        Path(local_dir).mkdir(parents=True)
        for name in allow_patterns:
            if (self.root / repo_id / name).exists():
                shutil.copyfile(self.root / repo_id / name, Path(local_dir) / name)
        return local_dir


def test_a_run_is_pushed_and_pulled_whole(run: Path, tmp_path: Path) -> None:
    client = Folder(tmp_path / "hub")
    pushed = hub.push(run, "me/sae", activations=activations(), client=client)
    assert client.calls == [("create_repo", "me/sae", True, True)], "private unless told otherwise"
    assert pushed.url == "hub/me/sae/commit/1"
    there = tmp_path / "hub" / "me" / "sae"
    assert sorted(pushed.files) == sorted(
        p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()
    )
    assert "secret.txt" not in pushed.files and "saelens/sae_weights.safetensors" in pushed.files
    fetched = hub.pull("me/sae", tmp_path / "here", client=client)
    assert (fetched / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    h = activations()
    ours, theirs = expander_sae.load(run), expander_sae.load(fetched)
    assert torch.equal(ours.decode(ours.encode(h)), theirs.decode(theirs.encode(h)))
    assert expander_sae.load(there / "saelens").about == ours.about
    (there / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="weights"):
        hub.pull("me/sae", tmp_path / "again", client=client)


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*")}


def test_pull_replaces_nothing_unless_told_to(run: Path, tmp_path: Path) -> None:
    client, here = Folder(tmp_path / "hub"), tmp_path / "project"
    hub.push(run, "me/sae", client=client)
    here.mkdir()
    mine = {"README.md": b"mine", "weights.safetensors": b"my own", "training.csv": b"old", "notes": b"kept"}
    for name, text in mine.items():
        (here / name).write_bytes(text)
    with pytest.raises(
        UserError, match=r"project: holds weights\.safetensors, training\.csv, README\.md, exp"
    ):
        hub.pull("me/sae", here, client=client)
    assert content(here) == mine and {path.name for path in tmp_path.iterdir()} == {"hub", "project", "run"}
    there = tmp_path / "hub" / "me" / "sae"
    card, weights = (there / "README.md").read_bytes(), (there / "weights.safetensors").read_bytes()
    (there / "weights.safetensors").write_bytes(weights[:-1])
    with pytest.raises(UserError, match=r"me/sae: weights\.safetensors: altered or cut short"):
        hub.pull("me/sae", here, overwrite=True, client=client)
    assert content(here) == mine, "nothing is replaced by what does not load"
    (there / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"me/sae: found no weights\.safetensors"):
        hub.pull("me/sae", here, overwrite=True, client=client)
    assert content(here) == mine, "a file of before is not taken for the repository's"
    (there / "weights.safetensors").write_bytes(weights)
    assert hub.pull("me/sae", here, overwrite=True, client=client) == here
    found = content(here)
    assert (found["README.md"], found["weights.safetensors"], found["notes"]) == (card, weights, b"kept")
    assert "metrics.parquet" in found and "training.csv" not in found, "the log was another run's"
    with pytest.raises(UserError, match="notes: a file, expected a folder"):
        hub.pull("me/sae", here / "notes", client=client)
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "project", "run"}, "nothing temporary stays"


def test_a_dry_run_contacts_nobody(run: Path, tmp_path: Path) -> None:
    client = Folder(tmp_path / "hub")
    pushed = hub.push(run, "me/sae", with_saelens="compact", dry_run=True, client=client)
    assert not client.calls and pushed.url is None and not (tmp_path / "hub").exists()
    assert pushed.files["weights.safetensors"] == (run / "weights.safetensors").stat().st_size
    with pytest.raises(UserError, match="with_saelens: found 'fat'"):
        hub.push(run, "me/sae", with_saelens="fat", dry_run=True)


def test_the_card_says_what_the_files_say(run: Path, tmp_path: Path) -> None:
    other, elsewhere = SPEC | {"support": "dense", "d": M}, SPEC | {"corpus": "another", "seed": 3}
    table = [
        *rows(SPEC, relative_error=0.4, ce_recovered=0.8, decoder_values=240),
        *rows(SPEC | {"seed": 1}, relative_error=0.5, ce_recovered=0.9, decoder_values=240),
        *rows(other, relative_error=0.3, ce_recovered=0.95, decoder_values=768),
        *rows(elsewhere, relative_error=0.1, decoder_values=240),
    ]
    write_metrics(table, tmp_path / "metrics.parquet")
    card = hub.push(
        run, "me/sae", licence="mit", base_model="org/tiny", dataset="org/text",
        table=tmp_path / "metrics.parquet", dry_run=True,
    ).card  # fmt: skip
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "expander-sae" and front["license"] == "mit"
    assert front["base_model"] == "org/tiny" and front["datasets"] == ["org/text"]
    assert "48 features of width 16, k = 4" in card and 'pull("me/sae")' in card
    assert "| `relative_error` | 0.4321 |" in card and "| `ce_recovered` | 0.8765 |" in card
    assert "| learned decoder values | 240 (3.2 times fewer than dense) |" in card
    assert "| **expander-tied (this one)** | 48 | 5 | 240 | 0.450 | 0.850 | – | 2 |" in card
    assert "| dense-tied | 48 | 16 | 768 | 0.300 | 0.950 | – | 1 |" in card
    assert "4,000 tokens of text" in card and "norm above 7.5" in card and "## Limits" in card


@pytest.mark.parametrize("measured", [True, False])
def test_the_card_says_of_the_saelens_folder_what_it_is(measured: bool, run: Path, tmp_path: Path) -> None:
    h = activations(scale=2.0)
    given = h if measured else None
    cards = {
        kind: hub.push(run, "me/sae", with_saelens=kind, activations=given, dry_run=True).card
        for kind in ("dense", "compact", None)
    }
    tags = {kind: yaml.safe_load(card.split("---")[1])["tags"] for kind, card in cards.items()}
    assert [("saelens" in tags[kind]) for kind in ("dense", "compact", None)] == [True, True, False]
    assert "SAELens" not in str(cards[None]) and "saelens" not in str(cards[None])
    load = 'sae = sae_lens.SAE.from_pretrained("me/sae", "saelens")'
    for kind in ("dense", "compact"):
        assert load in cards[kind] and ("was not measured" in cards[kind]) == (not measured)
        assert "cfg.json" not in cards[kind], "its record of what was measured may be null"
    plugin = "import expander_sae.interop.saelens_plugin"
    assert plugin not in cards["dense"] and plugin in cards["compact"].partition(load)[0]
    assert "It sets values of 0 or less among the k kept ones to 0" in cards["dense"]
    assert "Negative values among the k kept ones stay" in cards["compact"]
    assert "become 0" not in cards["compact"] and "other libraries encode them" not in cards["compact"]
    if measured:
        sae = expander_sae.load(run)
        kept = h[h.norm(dim=1) <= 7.5]
        _, positive = reference(sae, kept, relu=True)
        share, beyond = f"{float(positive.double().mean()):.2%}", f"{1 - len(kept) / len(h):.2%}"
        assert 0 < len(kept) < len(h) and 0 < int(positive.sum()) < len(kept)
        for kind in ("dense", "compact"):
            assert "Measured on 300 tokens" in cards[kind] and share in cards[kind]
            assert f"{beyond} of the tokens exceed norm_limit" in cards[kind]
        assert "become 0" in cards["dense"] and "`forward` passes them through" in cards["compact"]


def test_a_card_of_bare_weights_says_what_is_not_known(tmp_path: Path) -> None:
    small("dense").save(tmp_path / "weights.safetensors")
    card = hub.push(tmp_path, "me/sae", with_saelens=None, dry_run=True).card
    assert "Not recorded in the weights" in card and "No measurements were published" in card
    assert "saelens/" not in card and "license" not in card


def test_errors_of_the_hub_are_told_without_the_token(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")

    class Refusing(Folder):
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise OSError("403 for Bearer hf_verysecret\nmore")

    with pytest.raises(UserError, match="me/sae: the Hub could not do it") as raised:
        hub.push(run, "me/sae", client=Refusing(run))
    assert "hf_verysecret" not in str(raised.value) and "403" in str(raised.value)


class Server(BaseHTTPRequestHandler):
    """As much of the Hub as the real client asks for in an upload and a download."""

    files: dict[str, bytes]
    tokens: list[str]

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.tokens.append(self.headers.get("Authorization", ""))
        url = f"http://{self.headers['Host']}/me/sae"
        if self.path.endswith("/repos/create"):
            self._json({"url": url, "name": "me/sae", "id": "0"})
        elif "/preupload/" in self.path:
            asked = [entry["path"] for entry in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            self._json({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{url}/commit/1", "commitOid": "1" * 40, "success": True})
        else:
            self._json({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        siblings = [{"rfilename": name} for name in self.files]
        name = self.path.split("?")[0].split("/", 5)[-1]
        if "/resolve/" in self.path and name in self.files:
            content = self.files[name]
            etag = hashlib.sha256(content).hexdigest()
            self._answer(content, {"ETag": f'"{etag}"', "X-Repo-Commit": "1" * 40})
        elif "/tree/" in self.path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            self._json(entries)
        else:
            self._json({"id": "me/sae", "sha": "1" * 40, "siblings": siblings, "private": True, "tags": []})

    do_HEAD = do_GET


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"files": {}, "tokens": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", handler
    running.shutdown()
    thread.join()


def test_the_real_client_pushes_and_pulls(
    run: Path, tmp_path: Path, server: tuple[str, type[Server]], capfd: pytest.CaptureFixture[str]
) -> None:
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    address, handler = server
    client = library.HfApi(endpoint=address, token="hf_verysecret")
    pushed = hub.push(run, "me/sae", with_saelens="compact", client=client)
    assert set(handler.files) == set(pushed.files) and "commit" in str(pushed.url)
    assert any("hf_verysecret" in token for token in handler.tokens), "the client authenticates"
    fetched = hub.pull("me/sae", tmp_path / "here", client=client)
    assert (fetched / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    assert not (fetched / "saelens").exists()
    listed = client.snapshot_download("me/sae", local_dir=tmp_path / "dry", dry_run=True)
    assert {file.filename for file in listed} == set(pushed.files)
    said = "".join(capfd.readouterr())
    assert "hf_verysecret" not in said
