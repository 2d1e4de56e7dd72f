"""Publish a run on the Hugging Face Hub with a card written from its metrics, and fetch one.

Tokens are the client's own business (HF_TOKEN or a login): none is taken, kept or printed here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from expander_sae.errors import UserError, first_line
from expander_sae.interop import saelens
from expander_sae.interop.fidelity import Fidelity
from expander_sae.interop.model_card import METRICS, model_card
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import file_sizes
from expander_sae.training.run_folder import LOG, RECORD, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
FILES = (WEIGHTS, RECORD, METRICS, LOG)
PULLED = (*FILES, CARD)


@dataclass(frozen=True)
class Pushed:
    """Files that were, or in a dry run would be, uploaded: {path: bytes}; the card; the commit's address."""

    files: dict[str, int]
    card: str
    url: str | None


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    licence: str | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    table: str | Path | None = None,
    with_saelens: str | None = "dense",
    activations: Tensor | np.ndarray | None = None,
    message: str = "Upload an expander SAE",
    revision: str | None = None,
    dry_run: bool = False,
    client: HfApi | None = None,
) -> Pushed:
    """Upload the run in `folder`: weights, record, metrics, log, a card, and a SAELens folder.

    Args:
        folder: the run's.
        repo_id: OWNER/NAME on the Hub.
        private: whether a new repository is.
        licence, base_model, dataset, table: for the card, see `model_card`.
        with_saelens: ``dense`` (loads with SAELens alone), ``compact`` (needs our plug-in), or None.
        activations: measure on them where the SAELens folder's reconstruction differs from ours, for its
            configuration and the card.
        message, revision: of the commit, and the branch it goes to.
        dry_run: build everything, contact nobody.
        client: in place of `huggingface_hub.HfApi`.

    Raises:
        UserError: no weights in `folder`, or the Hub refused; the message says why.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        fidelity = _gather(Path(folder), stage, with_saelens, activations, base_model)
        about: dict[str, Any] = {"licence": licence, "base_model": base_model, "dataset": dataset}
        about |= {"table": table, "saelens": with_saelens, "fidelity": fidelity}
        card = model_card(folder, repo_id, **about)
        (stage / CARD).write_text(card, encoding="utf-8")
        files = file_sizes(stage)
        url = None if dry_run else _upload(client or _client(), repo_id, private, stage, message, revision)
    return Pushed(files, card, url)


def _gather(
    folder: Path,
    stage: Path,
    with_saelens: str | None,
    activations: Tensor | np.ndarray | None,
    model_name: str | None,
) -> Fidelity | None:
    """Copy the run's files and add the SAELens folder; what was measured of it."""
    if with_saelens not in (None, "dense", "compact"):
        raise UserError(f"with_saelens: found {with_saelens!r}, expected 'dense', 'compact' or None")
    autoencoder = SparseAutoencoder.load(folder / WEIGHTS)
    for name in FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, stage / name)
    if with_saelens is None:
        return None
    compact = with_saelens == "compact"
    return saelens.export(autoencoder, stage / "saelens", activations, compact, False, model_name=model_name)


def _upload(hub: HfApi, repo_id: str, private: bool, folder: Path, message: str, revision: str | None) -> str:
    """The address of the commit."""
    with _told(repo_id):
        hub.create_repo(repo_id, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id, folder_path=str(folder), commit_message=message, revision=revision
        )
    return str(getattr(commit, "commit_url", commit))


def pull(
    repo_id: str,
    folder: str | Path | None = None,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    client: HfApi | None = None,
) -> Path:
    """Fetch what `push` uploaded, but the SAELens folder, and check that it loads; for `expander_sae.load`.

    Args:
        repo_id: OWNER/NAME on the Hub.
        folder: where to put it; None is the Hub's own cache. Nothing is written there before all of it has
            come and has been checked.
        revision: commit, tag or branch.
        overwrite: replace what `folder` holds of these files, and remove those that the repository has
            not, so that what lies there afterwards is one run's.
        client: in place of `huggingface_hub.HfApi`.

    Raises:
        UserError: the Hub refused, what came is not a whole autoencoder on its mask, or `folder` already
            holds one of its files.
    """
    hub = client or _client()
    if folder is None:
        return _fetch(hub, repo_id, revision)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file, expected a folder to write")
    there = [name for name in PULLED if (folder / name).exists()]
    if there and not overwrite:
        raise UserError(
            f"{folder}: holds {', '.join(there)}, expected none of the files to be fetched; choose another "
            "folder, move them away, or replace them (overwrite=True, --overwrite)"
        )
    parent = folder.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=parent) as temporary:
            _replace(folder, _fetch(hub, repo_id, revision, Path(temporary) / "fetched"))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    return folder


def _replace(folder: Path, fetched: Path) -> None:
    """Make the files of `folder` those fetched; cut short, it is left without weights, not with others'."""
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).unlink(missing_ok=True)
    for name in sorted(PULLED, key=lambda name: name == WEIGHTS):
        if (fetched / name).is_file():
            os.replace(fetched / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _fetch(hub: HfApi, repo_id: str, revision: str | None, folder: Path | None = None) -> Path:
    with _told(repo_id):
        there = hub.snapshot_download(repo_id, revision=revision, local_dir=folder, allow_patterns=[*PULLED])
    fetched = Path(there)
    if not (fetched / WEIGHTS).is_file():
        raise UserError(f"{repo_id}: found no {WEIGHTS}, expected a repository that `push` made")
    try:
        SparseAutoencoder.load(fetched / WEIGHTS)
    except UserError as error:
        # The file lies in a temporary folder, whose name says nothing.
        raise UserError(f"{repo_id}: {str(error).replace(f'{fetched}/', '')}") from None
    return fetched


def _client() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError("huggingface_hub is not installed: pip install 'expander-sae[hub]'") from None
    return HfApi(library_name="expander-sae")


@contextmanager
def _told(repo_id: str) -> Iterator[None]:
    """The Hub's and the network's errors in one line, without a token."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        known = type(error).__module__.startswith(("huggingface_hub", "httpx", "requests"))
        if not known and not isinstance(error, OSError | ValueError):
            raise
        said = first_line(error)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            secret = os.environ.get(name)
            said = said.replace(secret, "…") if secret else said
        raise UserError(
            f"{repo_id}: the Hub could not do it ({said}); check the name, the network and HF_TOKEN"
        ) from None
