"""What a schema cannot say: relations between the values of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from operator import ge
from pathlib import Path
from typing import Any

from expander_sae.activations.positions import context_error, positions_in
from expander_sae.masks.supports import support_of
from expander_sae.model.precisions import stored_as
from expander_sae.pursuit.inference import ENCODER
from expander_sae.storage.locations import named
from expander_sae.study import imported, presets
from expander_sae.study.blocks import Config, as_list, block_of, sizes
from expander_sae.study.imported import Imported
from expander_sae.study.sweep import sweep_errors

RESERVED = ("logs", "masks", "sweep", "synthetic")
"""Folders of results/ that a model's name must not take."""


def semantic_errors(config: Config) -> Iterator[str]:
    """The mistakes of a config that the schema accepts."""
    # Folded: some file systems take no notice of case.
    names = [entry["name"].casefold() for entry in config["models"]]
    for index, entry in enumerate(config["models"]):
        if names[index] in RESERVED:
            yield f"models[{index}].name: found {entry['name']!r}, expected a name other than {RESERVED}"
        if names.index(names[index]) != index:
            yield f"models[{index}].name: found {entry['name']!r} again, expected another name"
        yield from _layer_errors(f"models[{index}].layers", as_list(entry["layers"]), entry)
        yield from _twice(f"models[{index}].layers", entry["layers"])
        yield from _context_errors(config["corpus"]["context"], entry)
    yield from _corpus_errors(config["corpus"])
    if "n" in config["grid"] and "expansion" in config["grid"]:
        yield "grid.expansion: found beside grid.n, expected one of the two"
    for part in ("grid", "synthetic"):
        for key, value in config.get(part, {}).items():
            yield from _twice(f"{part}.{key}", value)
    if "synthetic" in config:
        yield from _synthetic_errors(config["synthetic"])
    yield from sweep_errors(config)
    streamed = config["training"].get("stream", 0) > 0
    yield from _shard_errors(config, streamed)
    models = {entry["name"]: entry for entry in reversed(config["models"])}
    for index, entry in enumerate(config["runs"]):
        for key, value in entry.items():
            yield from _twice(f"runs[{index}].{key}", value)
        if wrong := list(imported.errors(config["runs"], index)):
            yield from wrong  # without its autoencoder the block says no sizes
            continue
        block, origin = block_of(config, index)
        yield from _block_errors(f"runs[{index}]", block, origin, models, config)
        if streamed:
            yield from _stream_errors(f"runs[{index}]", block, origin)


def _shard_errors(config: dict[str, Any], streamed: bool) -> Iterator[str]:
    """What reads shards that are not kept, or cannot delete them."""
    if config["compute"]["keep_shards"]:
        return
    found = "compute.keep_shards: found false with"
    if streamed:
        yield f"{found} training.stream above 0, which reads shards; expected true"
    if config["tokens"]["address"] is not None:
        yield f"{found} tokens.address, where nothing is deleted; expected true"


def _corpus_errors(corpus: dict[str, Any]) -> Iterator[str]:
    source, location, least = corpus["source"], corpus["location"], corpus["min_tokens"]
    known = presets.PACKAGE_VERSIONS
    if source not in presets.PACKAGE_SOURCES and location is None:
        what = "the id of a data set" if source == "hub" else "a path or glob"
        yield f"corpus.location: missing, expected {what} for source {source}"
    if source in presets.PACKAGE_SOURCES and location not in (None, *known):
        yield f"corpus.location: found {location!r}, expected one of {', '.join(known)}, or null for all"
    if least > corpus["context"]:
        yield f"corpus.min_tokens: found {least}, expected at most {corpus['context']} (corpus.context)"


def _context_errors(context: int, model: dict[str, Any]) -> Iterator[str]:
    """Of a model that is fetched first the job says it that tokenises the corpus."""
    if model["source"] == "folder":
        positions = positions_in(Path(named(model["location"])))
    else:
        positions = presets.POSITIONS.get(model["location"])
    if wrong := context_error(context, positions, model["name"]):
        yield wrong


def _synthetic_errors(asked: dict[str, Any]) -> Iterator[str]:
    m, n = asked["m"], asked["n"]
    least, most = -(-m // n), min(m, n)
    ds = f"{least} to m={m}, so that every row is written"
    yield from _misfits("synthetic.d", as_list(asked["d"]), lambda d: least <= d <= m, ds)
    ks = f"at most {most} (m={m}, n={n})"
    yield from _misfits("synthetic.k", as_list(asked["k"]), lambda k: k <= most, ks)


def _misfits(where: str, values: list[Any], fits: Callable[[Any], bool], expected: str) -> Iterator[str]:
    for position, value in enumerate(values):
        if not fits(value):
            yield f"{where}[{position}]: found {value!r}, expected {expected}"


def _twice(where: str, value: Any) -> Iterator[str]:
    for position, item in enumerate(value if isinstance(value, list) else ()):
        if value.index(item) != position:
            yield f"{where}[{position}]: found {item!r} again, expected no item twice"


def _layer_errors(where: str, layers: list[int], model: dict[str, Any]) -> Iterator[str]:
    depth = model["depth"]
    expected = f"at most {depth - 1} (model {model['name']} has {depth} layers, counted from 0)"
    yield from _misfits(where, layers, lambda layer: layer < depth, expected)


def _block_errors(
    here: str, block: dict[str, Any], origin: dict[str, str], models: dict[str, Any], config: Config
) -> Iterator[str]:
    if block["d"] is None:
        yield f"{here}.d: missing, expected the nonzeros of a decoder column here or in grid.d"
    if block["n"] is None and block["expansion"] is None:
        yield f"{here}.n: missing, expected n or expansion here or in grid"
    if all(origin[key] == f"{here}.{key}" and block[key] is not None for key in ("n", "expansion")):
        yield f"{here}.expansion: found beside {here}.n, expected one of the two"
    sized = [name for name in block["support"] if support_of(name).asks_d]
    others = [name for name in block["support"] if name != "dense"]
    if block["match"] and others:
        yield f"{here}.match: found {block['match']!r} with support {others[0]}, expected support dense alone"
    if block["imported"] is None:
        yield from _encoder_errors(here, block, origin)
        yield from _precision_errors(here, block, origin)
        yield from _codes_errors(here, block, origin)
    for name in block["cross_entropy"]:
        if name not in block["inference"]:
            yield f"{origin['cross_entropy']}: found {name!r}, expected only what {origin['inference']} lists"
    if "coherence" in block["analyses"] and config["evaluation"]["judge"] is None:
        yield f"{origin['analyses']}: found coherence, expected evaluation.judge to name who judges it"
    for name in block["models"]:
        if name not in models:
            yield f"{origin['models']}: found {name!r}, expected one of {', '.join(models)}"
            continue
        if block["layers"] is not None:
            yield from _layer_errors(origin["layers"], block["layers"], models[name])
        if block["imported"] is not None:
            yield from _width_errors(here, block["imported"], models[name])
        elif block["d"] is not None and (block["n"] or block["expansion"]):
            yield from _shape_errors(block, origin, models[name], sized)


def _width_errors(here: str, found: Imported, model: dict[str, Any]) -> Iterator[str]:
    """An autoencoder is of one width."""
    if found.sizes.m != model["width"]:
        where = f"{here}.path: found m = {found.sizes.m} in {found.path}"
        others = f"models that it does not fit are left out where {here}.models names the others"
        yield f"{where}, expected {model['width']}, the width of model {model['name']}; {others}"


def _encoder_errors(here: str, block: dict[str, Any], origin: dict[str, str]) -> Iterator[str]:
    apart = [encoder for encoder in block["encoder"] if encoder in ("own_support", "full")]
    maskless = [name for name in block["support"] if support_of(name).full]
    free = [encoder for encoder in block["encoder"] if encoder != "tied"]
    pruned = [name for name in block["support"] if support_of(name).parent]
    expected = "tied, warm_tied or independent (a dense dictionary has no support to choose)"
    pruning = "tied (it is pruned from the dense run with a tied encoder)"
    for found, names, allowed in ((apart, maskless, expected), (free, pruned, pruning)):
        if found and names:
            where = f"{origin['encoder']}: found {found[0]!r} with support {names[0]} ({here})"
            yield f"{where}, expected {allowed}"
    for name in block["support"]:
        known = support_of(name).encoders
        if wrong := [encoder for encoder in block["encoder"] if known and encoder not in known]:
            where = f"{origin['encoder']}: found {wrong[0]!r} with support {name} ({here})"
            yield f"{where}, expected {' or '.join(known)}"
    if block["match"] == "total" and "tied" in block["encoder"]:
        yield (
            f"{here}.match: found 'total' with encoder tied, expected encoder warm_tied or independent "
            "(a tied encoder adds no values: use decoder)"
        )


def _precision_errors(here: str, block: dict[str, Any], origin: dict[str, str]) -> Iterator[str]:
    """Training in a precision, of what no training makes."""
    untrained = [name for name in block["support"] if not support_of(name).trained]
    stepped = [name for name in block["precision"] if name != stored_as(name)]
    if untrained and stepped:
        found = f"{stepped[0]!r} with support {untrained[0]} ({here}), which nobody trains"
        yield f"{origin['precision']}: found {found}; expected {stored_as(stepped[0])}, which rounds it"


def _codes_errors(here: str, block: dict[str, Any], origin: dict[str, str]) -> Iterator[str]:
    pursued = [codes for codes in block["codes"] if codes != ENCODER]
    fixed = [name for name in block["support"] if not support_of(name).learns_columns]
    if pursued and fixed:
        where = f"{origin['codes']}: found {pursued[0]!r} with support {fixed[0]} ({here})"
        yield f"{where}, expected {ENCODER} (no training moves its columns)"


def _stream_errors(here: str, block: dict[str, Any], origin: dict[str, str]) -> Iterator[str]:
    """What needs a pool of the training tokens."""
    fitted = [name for name in block["support"] if support_of(name).fitted]
    if fitted:
        found = f"found above 0 with support {fitted[0]} ({here})"
        yield f"training.stream: {found}, which is fitted to all tokens; expected 0"
    if block["train_cross_entropy"]:
        found = f"found true with training.stream above 0 ({here})"
        yield f"{origin['train_cross_entropy']}: {found}, expected false: no pool holds training documents"


def _shape_errors(
    block: dict[str, Any], origin: dict[str, str], model: dict[str, Any], sized: list[str]
) -> Iterator[str]:
    m, name = model["width"], model["name"]

    def whole(ratio: float) -> bool:
        return abs(ratio * m - round(ratio * m)) <= 1e-9 and round(ratio * m) >= 2

    if block["n"] is None:
        multiple = f"a multiple of the width {m} of model {name} that is a whole number, at least 2"
        yield from _misfits(origin["expansion"], block["expansion"], whole, multiple)
    if sized or block["match"]:
        width = f"at most {m} (the width of model {name})"
        yield from _misfits(origin["d"], block["d"], lambda d: d <= m, width)
    for n in sizes(block, m):
        yield from _misfits(origin["k"], block["k"], partial(ge, n), f"at most n={n} (model {name})")
        for kind, (position, d) in product(sized, enumerate(block["d"])):
            here = f"{origin['d']}[{position}]: found {d} with n={n} and support {kind}"
            if d * n < m:
                least = f"d·n at least {m} (the width of model {name})"
                yield f"{here}, expected {least}, or some rows are never written"
            elif d <= m and (reason := support_of(kind).impossible(m, n, d)):
                yield f"{here}: {reason}"
