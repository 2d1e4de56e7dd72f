"""From a corpus spec to `tokens.parquet`, `corpus.json` and `origins.parquet`.

Documents come in the source's fixed order. One document of every group of near-duplicates is kept
and falls to train, test or ce by a hash of its text; reading stops when every split has its shards
full. Each decision depends on earlier documents only, so each split is prefix-stable: asking for
more tokens appends documents and changes none. Memory does not grow with them but by the sketches of
near-duplicates: kept documents wait on disk until the table is written.

A validation split takes the documents that fall to test or ce when these are full. It never takes one of
train, and no other split changes by it. More tokens of test or ce take the first of its documents away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from expander_sae.activations.language_model import tokenizer_of
from expander_sae.activations.near_duplicates import GRAM, GrowingFilter, word_grams
from expander_sae.activations.origins import ORIGINS, OriginsWriter
from expander_sae.activations.positions import check_context
from expander_sae.activations.sketches import ORDERS, Sample
from expander_sae.activations.sources import Text, open_source
from expander_sae.activations.splits import EXACT_TOKENS, VALIDATION, shard_counts, split_of
from expander_sae.activations.token_spool import TokenSpool
from expander_sae.activations.tokens import TokenizedDocument, write_token_table
from expander_sae.activations.weights import read_model, verify_weights, vocabulary_of
from expander_sae.errors import UserError
from expander_sae.machine.progress import Progress
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.storage.seals import write_sealed_json

_BATCH = 64
# Text offered to the tokenizer and to the comparison, per token of context. Compared are 700
# characters at 128 tokens, a little more than what 128 tokens of English hold.
_TOKENIZED_CHARACTERS = 64
_COMPARED_CHARACTERS = 700 / 128


class Splits:
    """The documents of each split while a corpus is read, and how many tokens each still wants.

    They lie in `folder` until `stack` is closed.
    """

    def __init__(self, spec: dict[str, Any], needs: dict[str, int], folder: Path, stack: ExitStack) -> None:
        self._spec = spec
        self._needs = needs
        shards = shard_counts(needs, spec["context"])
        self.wanted = {split: count * needs["shard"] for split, count in shards.items()}
        self.documents = {split: stack.enter_context(TokenSpool(folder)) for split in shards}
        self.grams = {split: Sample() for split in shards}
        self.dropped: Counter[str] = Counter(too_short=0, near_duplicate=0, not_needed=0)
        exact = spec.get("exact_tokens", EXACT_TOKENS)
        self._filter = GrowingFilter(spec["max_overlap"], exact, folder)
        stack.callback(self._filter.forget)

    @property
    def filled(self) -> int:
        """Tokens found of those wanted."""
        return sum(min(self.documents[split].tokens, wanted) for split, wanted in self.wanted.items())

    @property
    def context(self) -> int:
        """Tokens to which a document is cut."""
        return int(self._spec["context"])

    @property
    def compared(self) -> dict[str, Any]:
        """How near-duplicates were found, for the record; nothing where all were compared exactly."""
        exact = self._filter.exact_documents
        return {} if exact is None else {"documents_compared_exactly": exact, "sketch_orders": ORDERS}

    def add(self, number: int, text: str, token_ids: list[int]) -> bool:
        """Judge one document and keep it where it is wanted; returns whether it is kept."""
        spec = self._spec
        if len(token_ids) < spec["min_tokens"]:
            self.dropped["too_short"] += 1
            return False
        grams = word_grams(text, round(_COMPARED_CHARACTERS * spec["context"]))
        if not self._filter.admit(grams, len(token_ids)):
            self.dropped["near_duplicate"] += 1
            return False
        split = split_of(text, spec["data_seed"])
        if self._full(split) and split != "train":
            split = VALIDATION
        if self._full(split):
            self.dropped["not_needed"] += 1
            return False
        self.documents[split].add(TokenizedDocument(number, token_ids))
        self.grams[split].update(grams)
        return True

    def _full(self, split: str) -> bool:
        return split not in self.wanted or self.documents[split].tokens >= self.wanted[split]

    def end(self) -> None:
        """Compare no further document; raise `UserError` where the corpus ended before the asked amounts."""
        self._filter.forget()
        name, least = f"corpus {self._spec['name']!r}", self._spec["min_tokens"]
        tokens = Counter({split: documents.tokens for split, documents in self.documents.items()})
        if not any(tokens.values()):
            raise UserError(f"{name}: found no document of {least} tokens or more, expected some")
        for split, key, unit, found in (
            ("train", "train", "tokens", tokens["train"]),
            ("test", "test", "tokens", tokens["test"]),
            ("ce", "ce_sequences", "documents", self.documents["ce"].documents),
            (VALIDATION, VALIDATION, "tokens", tokens[VALIDATION]),
        ):
            if found < self._needs.get(split, 0):
                where = f"found {found} {unit} in the {split} split, expected {self._needs[split]}"
                raise UserError(f"{name} is too small for tokens.{key}: {where}")


def write_tokens(
    spec: dict[str, Any], needs: dict[str, int], model_json: Path, out_parquet: Path, out_json: Path
) -> None:
    """Write the token table (split, document, position, token_id) and its record, with the origins beside it.

    `needs` is that of `shard_counts`. Each split gets whole shards where the corpus is long enough; the ce
    split has room for `ce` sequences of full length.
    """
    model = read_model(model_json)
    verify_weights(model, model_json)
    check_context(spec["context"], model)
    folder = Path(out_json).parent
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        source, splits = open_source(spec), Splits(spec, needs, folder, stack)
        origins = stack.enter_context(OriginsWriter.to(folder / ORIGINS))
        documents, sha256 = _read(source.documents, splits, origins, model)
        splits.end()
        write_token_table(out_parquet, splits.documents)
    described = {split: spool.describe() for split, spool in splits.documents.items()}
    record: dict[str, Any] = {
        "label": spec["label"],
        "settings": {key: value for key, value in spec.items() if key not in ("name", "label")},
        "needs": needs,
        "source": {**source.description, "sha256_of_documents_read": sha256},
        "documents_read": documents,
        "documents_dropped": dict(splits.dropped),
        "special_tokens": "those the tokenizer adds by itself",
        "splits": described,
        "overlap": _overlap(splits.grams),
        "lineage": lineage("corpus"),
    }
    record |= splits.compared
    record["sha256"] = digest({split: about["sha256"] for split, about in described.items()})
    write_sealed_json(out_json, record)


def _read(
    documents: Iterable[Text], splits: Splits, origins: OriginsWriter, model: dict[str, Any]
) -> tuple[int, str]:
    """Read documents until no split wants more: (how many there were, sha256 of their texts)."""
    tokenizer, vocabulary = tokenizer_of(model), vocabulary_of(model)
    checksum = hashlib.sha256()
    read, wanted = 0, sum(splits.wanted.values())
    with Progress("corpus", wanted, "token") as progress:
        for number, (text, origin), token_ids in _tokenized(documents, tokenizer, splits.context):
            if max(token_ids, default=0) >= vocabulary:
                raise UserError(f"models[{model['name']}]: {_unknown(token_ids, number, vocabulary)}")
            if splits.add(number, text, token_ids):
                origins.add(number, origin, text)
            raw = text.encode(errors="replace")
            checksum.update(len(raw).to_bytes(8, "little") + raw)
            read = number + 1
            progress.to(splits.filled)
            if splits.filled == wanted:
                break
    return read, checksum.hexdigest()


def _unknown(token_ids: list[int], number: int, vocabulary: int) -> str:
    found = f"its tokenizer gives token {max(token_ids)} in document {number}"
    return f"{found}, expected numbers below {vocabulary}, the model's vocabulary"


def _tokenized(
    documents: Iterable[Text], tokenizer: Any, context: int
) -> Iterator[tuple[int, Text, list[int]]]:
    """(number, document, token ids) of every document, tokenised in batches for speed."""
    numbered = enumerate(documents)
    while batch := list(islice(numbered, _BATCH)):
        encoded = tokenizer(
            [document.text[: _TOKENIZED_CHARACTERS * context] for _, document in batch],
            add_special_tokens=True,
            truncation=True,
            max_length=context,
            return_attention_mask=False,
        )["input_ids"]
        for (number, document), token_ids in zip(batch, encoded, strict=True):
            yield number, document, token_ids


def _overlap(samples: dict[str, Sample]) -> dict[str, Any]:
    """How much of the held-out text stands in the training text, word 8-gram by word 8-gram.

    Where a split has many, this is estimated from those whose hashes are smallest.
    """
    unit = f"share of the distinct word {GRAM}-grams that also stand in train"
    train = samples["train"]
    found: dict[str, Any] = {"unit": unit, "train_grams": len(train)}
    for split, grams in samples.items():
        if split != "train":
            found[split] = {"grams": len(grams), "share_in_train": grams.share_in(train)}
    sampled = {split: sample.kept for split, sample in samples.items() if sample.kept < 1}
    return found | ({"share_of_grams_sampled": sampled} if sampled else {})
