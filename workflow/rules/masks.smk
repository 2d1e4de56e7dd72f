# Masks: a recipe and the checksum of what it generates.


rule mask:
    output:
        "results/masks/{family}_m{m}_n{n}_d{d}_seed{seed}.json",
    log:
        "results/logs/masks/{family}_m{m}_n{n}_d{d}_seed{seed}.log",
    resources:
        **asks(lambda w: PLAN.mask(int(w.n), int(w.d))),
    params:
        spec=quick(
            lambda w: canonical_json(
                {
                    "family": w.family,
                    **{key: int(getattr(w, key)) for key in ("m", "n", "d", "seed")},
                }
            )
        ),
        lineage=lineage("mask"),
    shell:
        called(
            "mask.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --out {output:q}"
        )
