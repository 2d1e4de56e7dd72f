import csv
import sys
import types

import pytest

from expander_sae.errors import UserError
from expander_sae.loggers import CsvLogger, TensorBoardLogger, WandbLogger, together

ROWS = [{"step": 50.0, "loss": 2.5, "silent_share": 0.0}, {"step": 100.0, "loss": 1.25, "silent_share": 0.5}]


def test_csv_holds_the_rows_while_training_goes_on(tmp_path):
    with CsvLogger(tmp_path / "new" / "log.csv") as logger:
        for count, row in enumerate(ROWS, start=1):
            logger(row)
            lines = (tmp_path / "new" / "log.csv").read_text(encoding="utf-8").splitlines()
            written = list(csv.DictReader(lines))
            assert [{name: float(value) for name, value in line.items()} for line in written] == ROWS[:count]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/log\.csv: cannot be written"):
        CsvLogger(tmp_path / "file" / "log.csv")


def test_together_tells_all_in_order():
    heard = []
    together(lambda row: heard.append(("a", row)), lambda row: heard.append(("b", row)))(ROWS[0])
    assert heard == [("a", ROWS[0]), ("b", ROWS[0])]


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoardLogger(tmp_path) as logger:
        for row in ROWS:
            logger(row)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(50, 2.5), (100, 1.25)]
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/silent_share"}


@pytest.mark.parametrize(
    ("module", "make"),
    [("tensorboard", lambda: TensorBoardLogger("unused")), ("wandb", lambda: WandbLogger("unused"))],
)
def test_a_missing_package_is_said_with_its_install(monkeypatch, module, make):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"not installed \(pip install"):
        make()


def test_wandb_gets_the_settings_and_the_rows_at_their_steps(monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished")
    )
    stand_in = types.SimpleNamespace(init=lambda **given: calls.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    with WandbLogger("mine", {"n": 8}, name="first") as logger:
        logger(ROWS[0])
    assert calls == [
        {"project": "mine", "config": {"n": 8}, "name": "first"},
        (50, {"loss": 2.5, "silent_share": 0.0}),
        "finished",
    ]
