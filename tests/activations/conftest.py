from __future__ import annotations

from pathlib import Path

import pytest

from expander_sae.activations.language_model import LanguageModel
from tests.tiny_models import tiny_model_json


@pytest.fixture(scope="session")
def model_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_json(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def model(model_json: Path) -> LanguageModel:
    return LanguageModel.load(model_json)
