import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from expander_sae.interop import hub
from tests.cli.conftest import N


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


def test_a_dry_run_shows_the_card_and_uploads_nothing(command, weights, stand_in):
    done = command("push", weights.parent, "me/sae", "--dry-run", "--licence", "apache-2.0")
    assert done.code == 0, done.err
    assert "license: apache-2.0" in done.out and "nothing was uploaded" in done.out
    assert stand_in == {}


def test_a_folder_without_weights_is_named(command, tmp_path, stand_in):
    done = command("push", tmp_path / "none", "me/sae")
    assert done.code == 1 and done.err.startswith(f"error: {tmp_path / 'none'}")
