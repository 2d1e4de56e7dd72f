import csv
import sys
import types

import pytest

from expander_sae.errors import UserError
from expander_sae.training.loggers import CsvLogger, TensorBoardLogger, TrackioLogger, WandbLogger, together

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
    [
        ("tensorboard", lambda: TensorBoardLogger("unused")),
        ("wandb", lambda: WandbLogger("unused")),
        ("trackio", lambda: TrackioLogger("unused")),
    ],
)
def test_a_missing_package_is_said_with_its_install(monkeypatch, module, make):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"not installed \(pip install"):
        make()


@pytest.mark.parametrize(("module", "kind"), [("wandb", WandbLogger), ("trackio", TrackioLogger)])
def test_wandb_and_trackio_get_the_settings_and_the_rows_at_their_steps(monkeypatch, module, kind):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished")
    )
    stand_in = types.SimpleNamespace(init=lambda **given: calls.append(given) or run)
    monkeypatch.setitem(sys.modules, module, stand_in)
    with kind("mine", {"n": 8}, name="first") as logger:
        logger(ROWS[0])
    assert calls == [
        {"project": "mine", "config": {"n": 8}, "name": "first"},
        (50, {"loss": 2.5, "silent_share": 0.0}),
        "finished",
    ]


def test_a_log_is_left_alone_until_there_is_a_row(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n50,1\n")
    with CsvLogger(log):
        pass
    assert log.read_text() == "step,loss\n50,1\n"
    with CsvLogger(log) as logger:
        logger(ROWS[1])
    assert [row["step"] for row in csv.DictReader(log.read_text().splitlines())] == ["100"]


def test_a_csv_that_is_no_file_is_written_to(tmp_path):
    with CsvLogger("/dev/null") as logger:
        logger(ROWS[0])


def test_rows_of_a_checkpoint_come_before_those_that_follow_it(tmp_path):
    log, heard = tmp_path / "log.csv", []
    with CsvLogger(log) as logger:
        both = together(logger, heard.append)
        both.resume(ROWS[:1])
        both(ROWS[1])
    assert [row["step"] for row in csv.DictReader(log.read_text().splitlines())] == ["50", "100"]
    assert heard == ROWS[1:], "a function is told of new rows only"


def test_tensorboard_writes_rows_of_a_checkpoint_where_there_are_none(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for row in ROWS:
        with TensorBoardLogger(tmp_path) as logger:
            logger.resume(ROWS[:1])
            if row is ROWS[1]:
                logger(row)
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        steps = [event.step for event in events.Scalars("train/loss")]
        assert steps == ([50] if row is ROWS[0] else [50, 100])
    assert len(list(tmp_path.iterdir())) == 2
    with TensorBoardLogger(tmp_path) as logger:
        logger.resume(ROWS)
    assert len(list(tmp_path.iterdir())) == 2, "nothing is written before the first row"


def test_a_tensorboard_folder_that_cannot_be_is_said_at_once(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be written"):
        TensorBoardLogger(tmp_path / "file")
