import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from expander_sae import load
from expander_sae.interop import hub
from tests.cli.conftest import M, N


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder that answers as the Hub's client does; `asked` holds what it was told."""
    store, asked = tmp_path / "hub", {}

    class Client:
        def create_repo(self, repo_id, *, private, exist_ok):
            asked[repo_id] = {"private": private}

        def upload_folder(self, *, repo_id, folder_path, commit_message, revision):
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)
            asked[repo_id] |= {"message": commit_message}
            return SimpleNamespace(commit_url=f"hub/{repo_id}")

        def snapshot_download(self, repo_id, *, revision, local_dir, allow_patterns):
            target = Path(local_dir)
            target.mkdir(parents=True)
            for name in allow_patterns:
                if (store / repo_id / name).is_file():
                    shutil.copy(store / repo_id / name, target / name)
            return str(target)

    monkeypatch.setattr(hub, "_client", Client)
    return asked


def test_what_is_pushed_can_be_pulled(command, tmp_path, weights, stand_in):
    done = command("push", weights.parent, "me/sae", "--message", "First", "--saelens", "none", "--json")
    assert done.code == 0, done.err
    assert done.json["url"] == "hub/me/sae" and not done.json["dry_run"]
    assert stand_in == {"me/sae": {"private": True, "message": "First"}}
    pulled = command("pull", "me/sae", "--out", tmp_path / "pulled")
    assert pulled.code == 0 and pulled.out == f"{tmp_path / 'pulled'}\n"
    assert (tmp_path / "pulled" / "weights.safetensors").read_bytes() == weights.read_bytes()
    assert command("inspect", tmp_path / "pulled", "--json").json["shape"]["n"] == N
    again = command("pull", "me/sae", "--out", tmp_path / "pulled")
    assert again.code == 1 and "--overwrite" in again.err
    assert command("pull", "me/sae", "--out", tmp_path / "pulled", "--overwrite").code == 0


def test_a_dry_run_shows_the_card_and_uploads_nothing(command, weights, stand_in):
    done = command("push", weights.parent, "me/sae", "--dry-run", "--licence", "apache-2.0")
    assert done.code == 0, done.err
    assert "license: apache-2.0" in done.out and "nothing was uploaded" in done.out
    assert stand_in == {}


def test_a_folder_without_weights_is_named(command, tmp_path, stand_in):
    done = command("push", tmp_path / "none", "me/sae")
    assert done.code == 1 and done.err.startswith(f"error: {tmp_path / 'none'}")


def test_a_weights_file_is_pushed_as_it_is(command, tmp_path, weights, activations, stand_in):
    given = weights.rename(tmp_path / "mine.safetensors")
    (tmp_path / "run.json").write_text("of something else")
    arguments = ("--activations", activations[0], "--saelens", "compact", "--json")
    done = command("push", given, "me/sae", *arguments)
    assert done.code == 0, done.err
    assert set(done.json["files"]) == {
        "README.md",
        "saelens/cfg.json",
        "saelens/sae_weights.safetensors",
        "weights.safetensors",
    }
    assert (tmp_path / "hub" / "me" / "sae" / "weights.safetensors").read_bytes() == given.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["mine.safetensors"]


def test_an_imported_folder_is_pushed_as_our_own(command, tmp_path, weights, stand_in):
    out = tmp_path / "exported"
    assert command("export", weights, "--format", "sparsify", "--out", out).code == 0
    done = command("push", out, "me/sae", "--saelens", "none")
    assert done.code == 0, done.err
    pushed = load(tmp_path / "hub" / "me" / "sae" / "weights.safetensors")
    assert torch.equal(pushed.b_dec, load(weights).b_dec) and pushed.n == N


def test_activations_of_another_width_are_refused_before_anything_is_sent(
    command, tmp_path, weights, stand_in
):
    np.save(tmp_path / "wide.npy", np.ones((5, M + 1), np.float32))
    done = command("push", weights, "me/sae", "--activations", tmp_path / "wide.npy")
    assert done.code == 1 and f"activations of width {M + 1}, expected m = {M}" in done.err
    assert stand_in == {}


def test_weights_of_a_layer_of_no_model_need_its_name(command, tmp_path, weights, stand_in):
    spec = {"layer": 3, "train_tokens": 5, "steps": 1, "recipe": "standard", "seed": 0}
    file = load(weights).save(tmp_path / "w.safetensors", spec=spec)
    done = command("push", file, "me/sae", "--saelens", "none")
    assert done.code == 1 and done.err.startswith("error: --base-model: found none")
    assert command("push", file, "me/sae", "--saelens", "none", "--base-model", "a/b", "--dry-run").code == 0
