"""What snakemake plans: everything once, then only what is missing."""

import copy
import re
import shutil
import subprocess

import pytest
import torch
import yaml

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.study.kept_tables import OTHER_TABLES, RUN_TABLES, row_files
from expander_sae.study.study import Study, load_config
from tests.workflow.planning import (
    BEING_WRITTEN,
    COLLECTED,
    ROOT,
    SNAKEMAKE,
    plan,
    pretend_finished,
    snakemake,
    touch,
)

pytestmark = pytest.mark.xdist_group("plan")

COLLECTORS = {
    **{"collect": 1, "timings": 1, "provenance": 1, "frontier": 1},
    **{"curves": 1, "claims": 1, "figures": 1, "tables": 1, "report": 1},
}

READ_THE_CHECKOUT = {"claims", "frontier", "figures", "tables", "report"}
"""Rules with inputs outside of the results, which lie elsewhere in a copy of the project."""

CONFIG = {
    "models": [{"name": "smollm2-135m-instruct", "layers": [2]}],
    "tokens": {"train": 2048, "test": 512, "ce_sequences": 4, "shard": 1024},
    "grid": {"n": 1152, "d": [7, 30], "k": 8, "seeds": [0, 1]},
    "runs": [{"support": "expander"}, {"support": "dense", "seeds": [0]}],
}


def copy_of_the_project(folder):
    """What a plan needs of the project, to be edited."""
    for name in ("workflow", "expander_sae", "resources", "profiles"):
        shutil.copytree(ROOT / name, folder / "copy" / name, ignore=BEING_WRITTEN)
    shutil.copy(ROOT / "Snakefile", folder / "copy")
    return folder / "copy"


def changed(**blocks):
    config = copy.deepcopy(CONFIG)
    for block, values in blocks.items():
        config[block] = {**config.get(block, {}), **values}
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    pretend_finished(folder, CONFIG)
    return folder


def test_a_fresh_folder_plans_every_job_once(tmp_path):
    assert plan(tmp_path, CONFIG) == {
        "model": 1,
        "tokens": 1,
        "extract_smollm2_135m_instruct": 4,
        "pool": 3,
        "mask": 4,
        "baseline": 1,
        "train": 3,
        "evaluate": 3,
        **COLLECTORS,
    }


def test_after_a_finished_run_there_is_nothing_to_do(finished):
    assert plan(finished, CONFIG) == {}


def test_one_more_d_plans_its_jobs_and_what_collects_them(finished):
    more = changed(grid={"d": [7, 30, 100]})
    assert plan(finished, more) == {"mask": 2, "train": 1, "evaluate": 1, **COLLECTORS}


def test_one_more_seed_plans_its_mask_and_its_cells(finished):
    more = changed(grid={"d": [7, 30], "seeds": [0, 1, 2]})
    assert plan(finished, more) == {"mask": 2, "train": 2, "evaluate": 2, **COLLECTORS}


def test_shards_that_are_there_stay_where_a_job_has_more_of_them(finished):
    assert plan(finished, changed(compute={"shards_per_job": 3})) == {}


def test_one_more_layer_leaves_the_other_layer_alone(finished):
    more = copy.deepcopy(CONFIG)
    more["models"][0]["layers"] = [2, 5]
    counts = plan(finished, more)
    assert (counts["train"], counts["evaluate"]) == (3, 3), "of the new layer only"
    assert counts["extract_smollm2_135m_instruct"] == 4, "one job a shard, which skips the layer it has"
    assert "tokens" not in counts and "model" not in counts and "mask" not in counts


def test_a_sweep_is_planned_beside_a_finished_study(finished):
    """Its documents are others', so only they are extracted; the shards and runs that are there stay."""
    sweep = {"training": {"learning_rate": [0.05, 0.2]}, "seeds": [0, 1]}
    counts = plan(finished, {**CONFIG, "sweep": sweep}, "results/sweep/sweep.pdf")
    assert counts["tokens"] == counts["sweep"] == 1 and counts["extract_smollm2_135m_instruct"] == 8
    assert counts["train"] == counts["validate"] == 6, "three cells, two recipes; seeds share a job"
    assert "evaluate" not in counts and "baseline" not in counts


def test_an_autoencoder_from_elsewhere_is_one_training_of_no_step_and_one_evaluation(finished, tmp_path):
    """Its files are no inputs: what they hold is in its folder's name, so that others are another run."""
    place = tmp_path / "weights.safetensors"
    sae = SparseAutoencoder(576, 600, 8)
    sae.save(place)
    more = {
        **CONFIG,
        "runs": [*CONFIG["runs"], {"support": "imported", "path": str(place), "name": "theirs"}],
    }
    first = Study(load_config(more)).runs[-1]
    assert plan(finished, more) == {"train": 1, "evaluate": 1, **COLLECTORS}
    with torch.no_grad():
        sae.b_dec[0] = 1.0
    sae.save(place)
    assert Study(load_config(more)).runs[-1].path != first.path


def test_more_training_tokens_train_nothing_again(finished):
    """The shards that are there stay; the run that asks for more tokens is another run."""
    more = copy.deepcopy(CONFIG)
    more["runs"].append({"support": "expander", "d": 7, "seeds": [0], "train_tokens": 4096})
    counts = plan(finished, more)
    assert counts["extract_smollm2_135m_instruct"] == 2
    assert counts["tokens"] == counts["train"] == counts["evaluate"] == counts["baseline"] == 1
    assert "mask" not in counts and "model" not in counts


@pytest.mark.parametrize(
    ("tokens", "new_shards"), [({"test": 2048}, 2), ({"test": 600}, 1), ({"ce_sequences": 40}, 4)]
)
def test_more_held_out_text_measures_everything_again_at_once(finished, tokens, new_shards):
    """No training, and no second call: the tables that are asked for have another name."""
    counts = plan(finished, changed(tokens={**CONFIG["tokens"], **tokens}))
    baseline = {"baseline": 1} if "ce_sequences" in tokens else {}
    assert counts.pop("extract_smollm2_135m_instruct", 0) <= new_shards
    measured = {rule: jobs for rule, jobs in COLLECTORS.items() if rule != "curves"}
    assert counts == {"tokens": 1, "pool": 3, "evaluate": 3, **baseline, **measured}


def test_steps_and_sequences_changed_together_share_no_old_baseline(finished):
    more = changed(tokens={**CONFIG["tokens"], "ce_sequences": 40}, training={"steps": 3000})
    counts = plan(finished, more)
    assert (counts["train"], counts["evaluate"], counts["baseline"]) == (3, 3, 1)


@pytest.mark.parametrize("stage", ["extraction", "training", "evaluation"])
def test_a_raised_stage_version_makes_that_stage_and_what_follows_again(finished, stage, tmp_path):
    """The workflow reads the versions from the library, here from a copy of it."""
    copied = copy_of_the_project(tmp_path)
    stages = copied / "expander_sae" / "stages.py"
    stages.write_text(re.sub(rf'"{stage}": \d+', f'"{stage}": 99', stages.read_text()))
    counts = plan(finished, CONFIG, source=copied)
    again = {"baseline", "evaluate"}
    again |= {"train"} if stage != "evaluation" else set()
    again |= {"extract_smollm2_135m_instruct", "pool"} if stage == "extraction" else set()
    assert again <= counts.keys()
    assert ("train" in counts) == (stage != "evaluation")


def test_an_edited_library_without_a_new_version_reruns_nothing(finished, tmp_path):
    copied = copy_of_the_project(tmp_path)
    for path in copied.glob("expander_sae/**/*.py"):
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert plan(finished, CONFIG, source=copied).keys() <= READ_THE_CHECKOUT


def test_an_edited_rule_or_script_without_a_new_version_reruns_nothing(finished, tmp_path):
    """As after a checkout of another version: each script is newer than the results."""
    copied = copy_of_the_project(tmp_path)
    for path in copied.glob("workflow/rules/*.smk"):
        path.write_text(path.read_text().replace(" --log ", "  --log "))
    assert plan(finished, CONFIG, source=copied).keys() <= READ_THE_CHECKOUT


def test_the_project_may_lie_in_a_folder_with_blanks(tmp_path):
    copied = copy_of_the_project(tmp_path / "a folder * of mine")
    mask = "results/masks/expander_m16_n32_d3_seed0.json"
    done = snakemake(tmp_path, CONFIG, "--", mask, source=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / mask).stat().st_size


def test_an_edited_text_is_another_corpus(tmp_path):
    text = tmp_path / "texts"
    text.mkdir()
    (text / "a.txt").write_text("some words")
    config = {**CONFIG, "corpus": {"name": "mine", "source": "files", "location": f"{text}/*.txt"}}
    first = Study(load_config(config)).corpus
    assert Study(load_config(config)).corpus == first
    (text / "a.txt").write_text("other words")
    assert Study(load_config(config)).corpus != first


def test_one_run_can_be_asked_for(tmp_path):
    cell = "results/smollm2-135m-instruct/docstrings/layer2/tuned_t2048_s1500/expander-tied/n1152_d7_k8"
    counts = plan(tmp_path, CONFIG, f"{cell}_seed1/weights.safetensors")
    assert counts["train"] == 1 and "evaluate" not in counts


def test_how_it_is_computed_reruns_nothing(finished):
    slower = {**CONFIG, "compute": {"threads": 2, "batch_tokens": 512, "backend": "torch", "device": "cpu"}}
    assert plan(finished, slower) == {}


def test_mistakes_stop_before_any_job_with_every_message_and_no_traceback(tmp_path):
    done = snakemake(tmp_path, changed(grid={"d": [7, 600], "kk": 3}), "--dry-run")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "config: grid.kk: unknown key; expected one of expansion, n, d, k, seeds, encoder" in text
    assert "Traceback" not in text
    done = snakemake(tmp_path, changed(grid={"d": [7, 600]}), "--dry-run")
    text = done.stdout + done.stderr
    assert "config: grid.d[1]: found 600, expected at most 576" in text
    assert "Traceback" not in text and not (tmp_path / "results").exists()


def test_the_published_grid_plans_offline(tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "paper.yaml").read_text())
    counts = plan(tmp_path, config)
    assert counts["model"] == counts["tokens"] == 4
    # Ten seeds of a cell are two trainings, and one evaluation.
    assert counts["train"] == counts["evaluate"] + 10 > 200


CELLS = "results/smollm2-135m-instruct/docstrings/layer2/tuned_t2048_s1500"
KEPT = {**CONFIG, "study": {"folder": "studies/mine"}}


def keep_rows(folder, left_out=()):
    """Empty rows of every run of KEPT but those whose name holds one of these texts."""
    study = Study(load_config(KEPT))
    names = {name: RUN_TABLES for name in study.run_rows} | dict.fromkeys(study.other_rows, OTHER_TABLES)
    for name, tables in names.items():
        for file in row_files(study.rows, name, tables):
            if not any(text in name for text in left_out):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()


def test_a_study_whose_rows_are_there_is_only_collected(tmp_path):
    keep_rows(tmp_path)
    assert plan(tmp_path, KEPT) == COLLECTORS
    assert plan(tmp_path, KEPT, "results/curves.parquet") == {"curves": 1}
    touch(tmp_path, KEPT, COLLECTED)
    assert plan(tmp_path, KEPT) == {}


def test_only_the_seed_without_rows_is_trained_and_recorded(tmp_path):
    keep_rows(tmp_path, ["expander-tied_n1152_d7_k8_seed1"])
    counts = plan(tmp_path, KEPT)
    assert [counts[name] for name in ("mask", "train", "evaluate", "record_run")] == [1, 1, 1, 1]
    assert "record_other" not in counts, "the model's own rows are there"
    done = snakemake(tmp_path, KEPT, "--dry-run", "--quiet", "progress")
    assert "train_1" in done.stdout + done.stderr


def test_rows_are_planned_although_the_activations_are_made_again(tmp_path):
    """In one call: Snakemake leaves out what is missing behind an ancient input that is made again."""
    pretend_finished(tmp_path, KEPT)
    name = "expander-tied/n1152_d7_k8_seed1"
    keep_rows(tmp_path, [name.replace("/", "_"), "baseline"])
    for file in ("weights.safetensors", "training.csv"):
        (tmp_path / CELLS / name / file).unlink()
    copied = copy_of_the_project(tmp_path)
    rules = copied / "workflow/rules/activations.smk"
    rules.write_text(rules.read_text().replace('lineage("extraction")', '"another version"'))
    counts = plan(tmp_path, KEPT, source=copied)
    assert counts["extract_smollm2_135m_instruct"] == 4
    assert [counts[rule] for rule in ("train", "record_run", "record_other")] == [1, 1, 1]


TWO_RULES = f"""
include: "{ROOT}/workflow/rules/common.smk"


rule first:
    output:
        "first.txt",
    shell:
        "echo VERSION > {{output}}"


rule second:
    input:
        ancient("first.txt"),
    output:
        "second.txt",
    shell:
        "cp {{input}} {{output}}"


rule everything:
    default_target: True
    input:
        "second.txt",
"""


@pytest.fixture(scope="module")
def first_made(tmp_path_factory):
    """A folder in which the first of two rules ran."""
    folder = tmp_path_factory.mktemp("two rules")
    (folder / "Snakefile").write_text(TWO_RULES.replace("VERSION", "1"))
    assert snakemake(folder, CONFIG, "--", "first.txt", source=folder).returncode == 0
    return folder


@pytest.mark.parametrize("asked", [["second.txt"], ["everything"], []])
def test_success_is_not_claimed_of_a_file_that_was_not_made(first_made, tmp_path, asked):
    """The same of a single file, for which the workflow can only be called again."""
    folder = tmp_path / "copy"
    shutil.copytree(first_made, folder)
    (folder / "Snakefile").write_text(TWO_RULES.replace("VERSION", "2"))
    left_out = snakemake(folder, CONFIG, "--", *asked, source=folder)
    assert left_out.returncode == 1
    assert "second.txt: not made" in left_out.stdout + left_out.stderr
    assert snakemake(folder, CONFIG, "--", *asked, source=folder).returncode == 0
    assert (folder / "second.txt").read_text() == "2\n"


def test_nothing_is_planned_in_a_copy_whose_files_are_all_new(tmp_path):
    """As of `cp -r`, or of rsync without times; one shard is larger than what Snakemake compares."""
    first, second = tmp_path / "first", tmp_path / "further" / "second"
    shards = "results/smollm2-135m-instruct/docstrings/layer2/shards"
    (first / shards).mkdir(parents=True)
    (first / shards / "train-00000.parquet").write_bytes(bytes(2_000_000))
    pretend_finished(first, CONFIG)
    shutil.copytree(first, second, copy_function=shutil.copy)
    for file in (second / "results").rglob("*.parquet"):
        file.touch()
    assert plan(second, CONFIG) == {}
    (second / shards / "train-00000.parquet").write_bytes(bytes(2_000_001))
    assert plan(second, CONFIG)["pool"] == 1, "other content is no copy"


def test_a_file_of_labels_may_have_any_name_but_one_with_braces(tmp_path, monkeypatch):
    """~ is the home folder, and brackets are no pattern."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = changed(evaluation={"analyses": ["selectivity"], "labels": "~/my [1] O'Neil.jsonl"})
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "my [1] O'Neil.jsonl").write_text("")
    assert plan(tmp_path, config)["labels"] == 1
    config["evaluation"]["labels"] = "my {x}.jsonl"
    done = snakemake(tmp_path, config, "--dry-run", "--quiet", "all")
    assert "evaluation.labels: found braces in 'my {x}.jsonl'" in done.stdout + done.stderr


def test_all_is_understood_where_snakemake_takes_it_for_a_configuration(tmp_path):
    """`snakemake --configfile FILE all`, typed in the checkout."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    command = [*SNAKEMAKE, "--dry-run", "--directory", tmp_path, "--configfile", tmp_path / "mine.yaml"]
    asked = [
        subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for words in (["all"], ["--", "all"])
    ]
    jobs = [text.partition("Job stats:")[2].partition("total")[0] for text in asked]
    assert jobs[0] == jobs[1] and "report" in jobs[0]


def test_thousands_of_runs_can_be_planned(tmp_path):
    """2,600 runs: a training job and an evaluation job for the seeds of a setting, three or two."""
    config = changed(grid={"n": None, "d": [3 * i for i in range(1, 35)], "seeds": [0, 1, 2]})
    config["grid"] = {"expansion": 8, "k": [16, 32, 64, 128, 256], **config["grid"]}
    config["grid"].pop("n")
    config["grid"]["k"] = [16, 32, 64, 128, 256]
    config["models"][0]["layers"] = list(range(0, 30, 6))
    config["runs"] = [{"support": "expander"}, {"support": "dense", "seeds": [0, 1]}]
    counts = plan(tmp_path, config)
    assert (counts["train"], counts["evaluate"]) == (875, 875)
