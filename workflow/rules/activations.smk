# From a language model and a corpus to the activations that training and evaluation read.


rule model:
    output:
        "results/{model}/model.json",
    log:
        "results/logs/{model}/model.log",
    resources:
        **asks(of(STUDY.models, "model", PLAN.model), minutes=60),
    params:
        spec=of(STUDY.models, "model", lambda model: canonical_json(model.spec)),
        lineage=lineage("model"),
    shell:
        called(
            "model.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --out {output:q}"
        )


rule tokens:
    input:
        model="results/{model}/model.json",
    output:
        tokens="results/{model}/{corpus}/tokens.parquet",
        record="results/{model}/{corpus}/corpus.json",
        origins="results/{model}/{corpus}/origins.parquet",
    log:
        "results/logs/{model}/{corpus}/tokens.log",
    resources:
        **asks(of(STUDY.models, "model", PLAN.corpus), minutes=120),
    params:
        spec=of({STUDY.corpus: STUDY.corpus_spec}, "corpus", canonical_json),
        needs=lambda w: canonical_json(STUDY.needs(w.model)),
        lineage=lineage("corpus"),
    shell:
        called(
            "tokens.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --needs {params.needs:q}"
            " --model {input.model:q} --out {output.tokens:q} --record {output.record:q}"
        )


# One forward pass serves all layers of a model, so each model has a rule with its own outputs; where a job
# extracts several shards, which no wildcard can name together, each such job has one.
# The tokens are ancient: more of them mean further shards and leave these as they are.
# Of shards in object storage the outputs are receipts.
# A shard that is not kept goes when its pools are there.
SHARDS_OUT = update if COMPUTE["keep_shards"] else lambda files: temp(update(files))
SHARD = "results/{{model}}/{{corpus}}/layer{layer}/shards/"
EXTRACT = called(
    "extract.py --log {log:q} --memory {resources.peak_mb}"
    " --spec {params.spec:q} --model {input.model:q}"
    " --tokens {input.tokens:q} --out {output:q}"
)
for MODEL in STUDY.models.values() if COMPUTE["shards_per_job"] == 1 else ():

    rule:
        name:
            f"extract_{re.sub('[^A-Za-z0-9_]', '_', MODEL.label)}"
        input:
            model="results/{model}/model.json",
            tokens=ancient("results/{model}/{corpus}/tokens.parquet"),
        output:
            SHARDS_OUT(
                expand(
                    f"{SHARD}{{{{split}}}}-{{{{shard}}}}.{STUDY.shard_suffix}", layer=MODEL.layers
                )
            ),
        log:
            "results/logs/{model}/{corpus}/extract_{split}-{shard}.log",
        wildcard_constraints:
            model=re.escape(MODEL.label),
        threads: THREADS
        resources:
            **asks(of(STUDY.models, "model", PLAN.extraction)),
            gpu=GPUS,
        params:
            spec=lambda w: canonical_json(STUDY.shard_spec(w.model, w.split)),
            lineage=lineage("extraction"),
        shell:
            EXTRACT


for MODEL in STUDY.models.values() if COMPUTE["shards_per_job"] > 1 else ():
    for SPLIT, SHARDS in STUDY.extractions(MODEL.label):

        rule:
            name:
                f"extract_{re.sub('[^A-Za-z0-9_]', '_', MODEL.label)}_{SPLIT}_{SHARDS[0]}"
            input:
                model="results/{model}/model.json",
                tokens=ancient("results/{model}/{corpus}/tokens.parquet"),
            output:
                SHARDS_OUT(
                    expand(
                        f"{SHARD}{SPLIT}-{{shard:05d}}.{STUDY.shard_suffix}",
                        layer=MODEL.layers,
                        shard=SHARDS,
                    )
                ),
            log:
                f"results/logs/{{model}}/{{corpus}}/extract_{SPLIT}-{SHARDS[0]:05d}to{SHARDS[-1]:05d}.log",
            wildcard_constraints:
                model=re.escape(MODEL.label),
            threads: THREADS
            resources:
                **asks(lambda w, shards=len(SHARDS): PLAN.extraction(STUDY.models[w.model], shards)),
                gpu=GPUS,
            params:
                spec=lambda w, split=SPLIT: canonical_json(STUDY.shard_spec(w.model, split)),
                lineage=lineage("extraction"),
            shell:
                EXTRACT


rule pool:
    input:
        shards=lambda w: STUDY.shard_files(w.model, w.layer, w.split),
        corpus="results/{model}/{corpus}/corpus.json",
    output:
        data="results/{model}/{corpus}/layer{layer}/pool/{split}.f32",
        record="results/{model}/{corpus}/layer{layer}/pool/{split}.json",
        index="results/{model}/{corpus}/layer{layer}/pool/{split}.tokens.safetensors",
    log:
        "results/logs/{model}/{corpus}/layer{layer}/pool_{split}.log",
    resources:
        **asks(lambda w: PLAN.pool(STUDY.models[w.model], w.split)),
    params:
        spec=lambda w: canonical_json(STUDY.pool_spec(w.model, int(w.layer), w.split)),
        shards=lambda w, input: str(Path(input.shards[0]).parent),
        lineage=lineage("pool"),
    shell:
        called(
            "pool.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --shards {params.shards:q}"
            " --data {output.data:q} --out {output.record:q}"
        )


# Training that streams reads the shards themselves: this lists them and copies nothing.
rule shard_list:
    input:
        shards=lambda w: STUDY.shard_files(w.model, w.layer, w.split),
        corpus="results/{model}/{corpus}/corpus.json",
    output:
        "results/{model}/{corpus}/layer{layer}/pool/{split}.shards.json",
    log:
        "results/logs/{model}/{corpus}/layer{layer}/shard_list_{split}.log",
    resources:
        **asks(lambda w: PLAN.pool(STUDY.models[w.model], w.split)),
    params:
        spec=lambda w: canonical_json(STUDY.pool_spec(w.model, int(w.layer), w.split)),
        shards=lambda w, input: str(Path(input.shards[0]).parent),
        lineage=lineage("pool"),
    shell:
        called(
            "shard_list.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --shards {params.shards:q} --out {output:q}"
        )
