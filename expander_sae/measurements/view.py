"""A place at one budget and k, and what was measured there.

A place is a model, corpus, layer, recipe and size of dictionary. Its main budget is the pair of training
tokens and steps with most sparse runs, its main k the one with most runs there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from expander_sae.masks.supports import described, support_order
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.index import Index
from expander_sae.measurements.published import TOKENS, Published, PublishedMean
from expander_sae.study.run import Cell


class Place(NamedTuple):
    """Where runs can be compared. `n`: features of its sparse runs."""

    model: str
    corpus: str
    layer: int
    recipe: str
    m: int
    n: int

    def __str__(self) -> str:
        return f"{self.model}, layer {self.layer}, {self.corpus}, recipe {self.recipe}, n = {self.n:,}"


@dataclass(frozen=True)
class View:
    """One place at one budget and k. cells: those of the place, whatever their budget and k."""

    index: Index = field(repr=False, compare=False)
    paper: Published = field(repr=False, compare=False)
    cells: list[Cell] = field(repr=False, compare=False)
    place: Place
    train_tokens: int
    steps: int
    k: int

    def cell(self, support: str, d: int | None = None, **columns: Any) -> Cell:
        """The tied cell of a support and d; `columns` that differ from the view's. Dense cells have d = m."""
        wide = self.place.m if d is None or support == "dense" else d
        mine: dict[str, Any] = {"encoder": "tied", "k": self.k}
        mine |= {"train_tokens": self.train_tokens, "steps": self.steps}
        mine |= {"precision": self.index.precision, "codes": self.index.codes}
        return Cell(**{**self.place._asdict(), "support": support, "d": wide, **mine, **columns})

    def estimate(
        self, metric: str, support: str, d: int | None = None, *, inference: str = "encoder",
        split: str | None = None, **columns: Any,
    ) -> Estimate:  # fmt: skip
        """A metric over the seeds of `cell(support, d, **columns)`."""
        return self.index.estimate(self.cell(support, d, **columns), metric, inference, split)

    def published(
        self, metric: str, support: str, d: int | None = None, *, inference: str = "encoder", **columns: Any
    ) -> PublishedMean:
        """What was published of the same cell, at the published budget unless `columns` say otherwise."""
        cell = self.cell(support, d, **{"train_tokens": TOKENS, **columns})
        return self.paper.mean(cell, metric, inference)

    def near(self, metric: str, inference: str) -> Iterator[tuple[Cell, PublishedMean]]:
        """What was published of dictionaries of the same model, layer, m and k, whatever their n and d."""
        return self.paper.cells(self.cell("dense", train_tokens=TOKENS), metric, inference)

    @property
    def has_published(self) -> bool:
        """Whether anything was published of this model and layer."""
        return self.paper.knows(self.place.model, self.place.layer)

    def entropies(self) -> dict[str, float]:
        """The model's own cross-entropies in nats: as it is, and with the layer's output ablated.

        Ablations that keep the passed-through tokens are those of this recipe and number of tokens.
        """
        place = self.place
        own = self.index.matching(support="none", model=place.model, corpus=place.corpus, layer=place.layer)
        here = [one for one in own if (one.recipe, one.train_tokens) == (place.recipe, self.train_tokens)]
        found: dict[str, float] = {}
        for metric in ("ce_clean", "ce_zero", *(("ce_zero_kept", "ce_mean_kept") if here else ())):
            for cell in sorted(here or own):
                for value in self.index.values(cell, metric, "none", "ce").values():
                    found.setdefault(metric, value)
        return found

    def matching(self, **where: Any) -> list[Cell]:
        """The cells of the view's budget, k, precision and codes (or what `where` names; None: any)."""
        mine = {"train_tokens": self.train_tokens, "steps": self.steps, "k": self.k}
        wanted = {**mine, "precision": self.index.precision, "codes": self.index.codes, **where}
        return [
            cell
            for cell in self.cells
            if all(value is None or getattr(cell, column) == value for column, value in wanted.items())
        ]

    def values(self, column: str, **where: Any) -> list[Any]:
        """Sorted values of a column among the cells that match `where`."""
        return sorted({getattr(cell, column) for cell in self.matching(**where)})

    def ds(self, support: str = "expander", **where: Any) -> list[int]:
        """The d of a support's tied cells."""
        return self.values("d", support=support, **{"encoder": "tied", **where})

    def floors(self) -> list[Cell]:
        """The cells of dictionaries that nobody trained, of the same layer and training tokens."""
        here = self.place._replace(n=0), self.train_tokens
        return sorted(
            cell
            for cell in self.index.trained
            if (_place(cell, 0), cell.train_tokens) == here
            and not described(cell.support).trained
            and not described(cell.support).imported
        )

    def imports(self) -> list[Cell]:
        """The cells of autoencoders from elsewhere, of the same layer and training tokens, whatever their n
        and k."""
        here = self.place._replace(n=0), self.train_tokens
        return sorted(
            cell
            for cell in self.index.trained
            if (_place(cell, 0), cell.train_tokens) == here and described(cell.support).imported
        )

    def supports(self, **where: Any) -> list[str]:
        """The sparse supports of tied cells: the expander first, then known ones, then others."""
        found = {cell.support for cell in self.matching(**{"encoder": "tied", **where})} - {"dense"}
        return sorted(found, key=support_order)

    def __str__(self) -> str:
        return (
            f"{self.place.model}, layer {self.place.layer}; m = {self.place.m:,}, n = {self.place.n:,}, "
            f"k = {self.k}; {self.train_tokens:,} tokens of {self.place.corpus}, {self.steps:,} steps, "
            f"recipe “{self.place.recipe}”"
        )


def main_views(index: Index, paper: Published) -> list[View]:
    """Each place at its main budget and k, the place with most sparse runs first."""
    places = _by_place(index)

    def order(place: Place) -> tuple[int, Place]:
        return -sum(len(index.trained[cell]) for cell in places[place]), place

    return [_view(index, paper, place, *_main(index, places[place])) for place in sorted(places, key=order)]


def every_view(index: Index, paper: Published) -> list[View]:
    """Each place at each budget and k of its sparse runs, sorted.

    Of one place the largest budget comes first, the others being steps towards it, and within a budget
    the k with most d: a study measures its other k at the ends of the frontier only.
    """
    ds: dict[tuple[Place, tuple[int, int], int], set[int]] = {}
    for place, cells in _by_place(index).items():
        for cell in cells:
            ds.setdefault((place, _budget(cell), cell.k), set()).add(cell.d)

    def order(at: tuple[Place, tuple[int, int], int]) -> tuple[Any, ...]:
        place, (tokens, steps), k = at
        return *place[:4], -tokens, -steps, place.m, place.n, -len(ds[at]), k

    return [_view(index, paper, *at) for at in sorted(ds, key=order)]


def _view(index: Index, paper: Published, place: Place, budget: tuple[int, int], k: int) -> View:
    cells = [
        cell
        for cell in index.trained
        if _place(cell, place.n) == place
        and (cell.n == place.n or cell.support == "dense")
        and described(cell.support).trained
    ]
    return View(index, paper, cells, place, *budget, k)


def _place(cell: Cell, n: int) -> Place:
    return Place(cell.model, cell.corpus, cell.layer, cell.recipe, cell.m, n)


def _budget(cell: Cell) -> tuple[int, int]:
    return cell.train_tokens, cell.steps


def _by_place(index: Index) -> dict[Place, list[Cell]]:
    """The sparse cells of each place; where nothing is sparse, the dense ones, n being their largest.

    What nobody trained makes no place: it stands beside what was trained there.
    """
    shown = [
        cell
        for cell in index.trained
        if (cell.precision, cell.codes) == (index.precision, index.codes)
        and not described(cell.support).beside
    ]
    features = {cell: cell.n for cell in shown if cell.support != "dense"}
    if not features:
        alike = {cell: _place(cell, 0) for cell in shown}
        features = {cell: max(one.n for one in alike if alike[one] == alike[cell]) for cell in alike}
    found: dict[Place, list[Cell]] = {}
    for cell, n in features.items():
        found.setdefault(_place(cell, n), []).append(cell)
    return found


def _main(index: Index, cells: list[Cell]) -> tuple[tuple[int, int], int]:
    """The main budget and k of a place's sparse cells."""
    budgets = _runs(index, cells, _budget)
    budget = max(budgets, key=lambda one: (budgets[one], one))
    ks = _runs(index, [cell for cell in cells if _budget(cell) == budget], lambda cell: cell.k)
    return budget, max(ks, key=lambda k: (ks[k], k == 64, k))


def _runs(index: Index, cells: list[Cell], of: Callable[[Cell], Any]) -> Counter[Any]:
    """How many runs each value has."""
    counts: Counter[Any] = Counter()
    for cell in cells:
        counts[of(cell)] += len(index.trained[cell])
    return counts
