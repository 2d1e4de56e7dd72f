# Training: one rule for each list of seeds.

TRAININGS = targets.trainings(STUDY)


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
            cell=CELL if len(TRAININGS) == 1 else one_of(CELLS),
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
            "$PYTHON $SCRIPTS/train.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --pool {input.pool:q}"
