"""From a corpus spec to `tokens.parquet`, `corpus.json` and `origins.parquet`.

Documents come in the source's fixed order. One document of every group of near-duplicates is kept
and falls to train, test or ce by a hash of its text; reading stops when every split has its shards
full. Each decision depends on earlier documents only, so each split is prefix-stable: asking for
more tokens appends documents and changes none.

A validation split takes the documents that fall to test or ce when these are full. It never takes one of
train, and no other split changes by it. More tokens of test or ce take the first of its documents away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.activations.language_model import tokenizer_of
from expander_sae.activations.near_duplicates import GRAM, NearDuplicateFilter, share_contained, word_grams
from expander_sae.activations.origins import ORIGINS, Origins
from expander_sae.activations.positions import check_context
from expander_sae.activations.sources import Text, open_source
from expander_sae.activations.splits import VALIDATION, shard_counts, split_of
from expander_sae.activations.tokens import TokenizedDocument, write_token_table
from expander_sae.activations.weights import read_model, verify_weights, vocabulary_of
from expander_sae.errors import UserError
from expander_sae.machine.progress import Progress
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.storage.remote import Place
from expander_sae.storage.seals import write_sealed_json

_BATCH = 64
# Text offered to the tokenizer and to the comparison, per token of context. Compared are 700
# characters at 128 tokens, a little more than what 128 tokens of English hold.
_TOKENIZED_CHARACTERS = 64
_COMPARED_CHARACTERS = 700 / 128


class Splits:
    """The documents of each split while a corpus is read, and how many tokens each still wants."""

    def __init__(self, spec: dict[str, Any], needs: dict[str, int]) -> None:
        self._spec = spec
        self._needs = needs
        shards = shard_counts(needs, spec["context"])
        self.wanted = {split: count * needs["shard"] for split, count in shards.items()}
        self.documents: dict[str, list[TokenizedDocument]] = {split: [] for split in shards}
        self.grams: dict[str, set[int]] = {split: set() for split in shards}
        self.tokens: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter(too_short=0, near_duplicate=0, not_needed=0)
        self._filter = NearDuplicateFilter(spec["max_overlap"])

    @property
    def filled(self) -> int:
        """Tokens found of those wanted."""
        return sum(min(self.tokens[split], wanted) for split, wanted in self.wanted.items())

    def add(self, number: int, text: str, token_ids: list[int]) -> bool:
        """Judge one document and keep it where it is wanted; returns whether it is kept."""
        spec = self._spec
        if len(token_ids) < spec["min_tokens"]:
            self.dropped["too_short"] += 1
            return False
        grams = word_grams(text, round(_COMPARED_CHARACTERS * spec["context"]))
        if not self._filter.admit(grams):
            self.dropped["near_duplicate"] += 1
            return False
        split = split_of(text, spec["data_seed"])
        if self._full(split) and split != "train":
            split = VALIDATION
        if self._full(split):
            self.dropped["not_needed"] += 1
            return False
        self.documents[split].append(TokenizedDocument(number, token_ids))
        self.grams[split] |= grams
        self.tokens[split] += len(token_ids)
        return True

    def _full(self, split: str) -> bool:
        return self.tokens[split] >= self.wanted.get(split, 0)

    def check(self) -> None:
        """Raise `UserError` where the corpus ended before the asked amounts."""
        name, least = f"corpus {self._spec['name']!r}", self._spec["min_tokens"]
        if not any(self.tokens.values()):
            raise UserError(f"{name}: found no document of {least} tokens or more, expected some")
        for split, key, unit, found in (
            ("train", "train", "tokens", self.tokens["train"]),
            ("test", "test", "tokens", self.tokens["test"]),
            ("ce", "ce_sequences", "documents", len(self.documents["ce"])),
            (VALIDATION, VALIDATION, "tokens", self.tokens[VALIDATION]),
        ):
            if found < self._needs.get(split, 0):
                where = f"found {found} {unit} in the {split} split, expected {self._needs[split]}"
                raise UserError(f"{name} is too small for tokens.{key}: {where}")


def write_tokens(
    spec: dict[str, Any], needs: dict[str, int], model_json: Path, out_parquet: Place, out_json: Path
) -> None:
    """Write the token table (split, document, position, token_id) and its record, with the origins beside it.

    `needs` is that of `shard_counts`. Each split gets whole shards where the corpus is long enough; the ce
    split has room for `ce` sequences of full length.
    """
    model = read_model(model_json)
    verify_weights(model, model_json)
    check_context(spec["context"], model)
    tokenizer = tokenizer_of(model)
    vocabulary = vocabulary_of(model)
    source = open_source(spec)
    splits, origins = Splits(spec, needs), Origins()
    checksum = hashlib.sha256()
    read, wanted = 0, sum(splits.wanted.values())
    with Progress("corpus", wanted, "token") as progress:
        for number, (text, origin), token_ids in _tokenized(source.documents, tokenizer, spec["context"]):
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
    splits.check()
    write_token_table(out_parquet, splits.documents)
    origins.write(Path(out_json).with_name(ORIGINS))
    record: dict[str, Any] = {
        "label": spec["label"],
        "settings": {key: value for key, value in spec.items() if key not in ("name", "label")},
        "needs": needs,
        "source": {**source.description, "sha256_of_documents_read": checksum.hexdigest()},
        "documents_read": read,
        "documents_dropped": dict(splits.dropped),
        "special_tokens": "those the tokenizer adds by itself",
        "splits": {split: _describe(splits, split) for split in splits.documents},
        "overlap": _overlap(splits),
        "lineage": lineage("corpus"),
    }
    record["sha256"] = digest({split: record["splits"][split]["sha256"] for split in splits.documents})
    write_sealed_json(out_json, record)


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


def _describe(splits: Splits, split: str) -> dict[str, Any]:
    documents = splits.documents[split]
    checksum = hashlib.sha256()
    for document in documents:
        checksum.update(np.array([document.number, len(document.token_ids)], "<i8").tobytes())
        checksum.update(np.array(document.token_ids, "<i4").tobytes())
    return {"documents": len(documents), "tokens": splits.tokens[split], "sha256": checksum.hexdigest()}


def _overlap(splits: Splits) -> dict[str, Any]:
    """How much of the held-out text stands in the training text, word 8-gram by word 8-gram."""
    unit = f"share of the distinct word {GRAM}-grams that also stand in train"
    train = splits.grams["train"]
    found: dict[str, Any] = {"unit": unit, "train_grams": len(train)}
    for split, grams in splits.grams.items():
        if split == "train":
            continue
        found[split] = {"grams": len(grams), "share_in_train": share_contained(grams, train)}
    return found
