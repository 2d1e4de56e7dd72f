# Training: one rule for each list of seeds, and one for each job of several settings.

TRAININGS, TOGETHER = targets.trainings(STUDY), targets.trained_together(STUDY)
TRAIN = called(
    "train.py --log {log:q} --memory {resources.peak_mb}"
    " --spec {params.spec:q} --pool {input.pool:q}"
)


# The seeds of a setting share a job, which trains those that are not yet trained. The pool is ancient:
# it grows at its end, and a run's fingerprint holds a checksum of the tokens that it uses. So is a dense
# run that others are pruned from, whose fingerprint theirs hold.
#
# An output's name must hold the seeds, so settings with equal seeds have a rule. The spec is no trigger
# (a param that depends on the output is none): a run's folder is named by all that it says.
for SEEDS, CELLS in TRAININGS.items():

    rule:
        name:
            f"train_{targets.seeds_name(SEEDS)}"
        input:
            unpack(inputs_of(CELLS, "cell", targets.for_training)),
        output:
            weights=update(expand("results/{{cell}}_seed{seed}/weights.safetensors", seed=SEEDS)),
            history=update(expand("results/{{cell}}_seed{seed}/training.csv", seed=SEEDS)),
        log:
            f"results/logs/{{cell}}/train_{targets.seeds_name(SEEDS)}.log",
        wildcard_constraints:
            cell=CELL_PATTERN if len(TRAININGS) == 1 and not TOGETHER else one_of(CELLS),
        threads: THREADS
        resources:
            **asks(of(CELLS, "cell", lambda cell: PLAN.trainings(cell.runs))),
            gpu=GPUS,
        params:
            spec=untriggered(
                of(CELLS, "cell", lambda cell: canonical_json(targets.training_spec(cell)))
            ),
            lineage=lineage("training"),
        shell:
            TRAIN


# Several settings with one number of steps, whose outputs no wildcard can name together.
for NAME, TASK in TOGETHER.items():

    rule:
        name:
            f"train_{NAME}"
        input:
            **marked(targets.for_training(TASK)),
        output:
            weights=update([targets.weights(run.path) for run in TASK.runs]),
            history=update([f"{run.path}/training.csv" for run in TASK.runs]),
        log:
            f"results/logs/{TASK.name}/train.log",
        # The longest first, so that no core waits for one that began late.
        priority: round(PLAN.trainings(TASK.runs).seconds)
        threads: THREADS
        resources:
            **asks(lambda w, task=TASK: PLAN.trainings(task.runs)),
            gpu=GPUS,
        params:
            spec=untriggered(lambda w, task=TASK: canonical_json(targets.training_spec(task))),
            lineage=lineage("training"),
        shell:
            TRAIN
