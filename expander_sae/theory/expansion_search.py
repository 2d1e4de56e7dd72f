"""Searching for sets of columns that expand badly: greedy growth, top overlaps and swaps.

What a column would add to a set is kept up to date as rows become covered and uncovered, so that
growing a set costs O(edges + s·n) in all and not O(s·edges).
"""

from __future__ import annotations

import numpy as np

from expander_sae.masks.recipe import Mask


class ExpansionSearch:
    """Sets of columns of one mask."""

    def __init__(self, mask: Mask) -> None:
        self.m, self.n = mask.recipe.m, mask.recipe.n
        valid = mask.valid()
        self.degrees = mask.degrees.astype(np.int64)
        self._rows = mask.rows[valid].astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.degrees)])
        # The columns that use each row, one row after another.
        owner = np.repeat(np.arange(self.n), self.degrees)
        self._users = owner[np.argsort(self._rows, kind="stable")]
        self._user_counts = np.bincount(self._rows, minlength=self.m)
        self._user_starts = np.concatenate([[0], np.cumsum(self._user_counts)])

    def rows_of(self, column: int) -> np.ndarray:
        """int64 [degree]: the rows of a column."""
        return self._rows[self._starts[column] : self._starts[column + 1]]

    def users_of(self, rows: np.ndarray) -> np.ndarray:
        """int64 [n]: how many of these rows each column uses."""
        counts = self._user_counts[rows]
        first = np.repeat(self._user_starts[rows] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        return np.bincount(self._users[first + np.arange(len(first))], minlength=self.n)

    def greedy(self, first: int, s: int) -> np.ndarray:
        """From one column, always add the column that repeats the most rows."""
        cover = Cover(self)
        cover.add(first)
        chosen = [first]
        taken = np.zeros(self.n, dtype=bool)
        taken[first] = True
        while len(chosen) < s:
            chosen.append(int(np.where(taken, 1, cover.loss).argmin()))
            taken[chosen[-1]] = True
            cover.add(chosen[-1])
        return np.array(chosen)

    def top_overlap(self, first: int, s: int) -> np.ndarray:
        """One column and the s − 1 that share most rows with it."""
        cover = Cover(self)
        cover.add(first)
        loss = cover.loss.copy()
        loss[first] = loss.min() - 1
        return np.argsort(loss, kind="stable")[:s]

    def swap(self, start: np.ndarray, rounds: int) -> np.ndarray:
        """Local search: drop each member in turn and put the best column in its place."""
        cover = Cover(self)
        chosen = list(map(int, start))
        taken = np.zeros(self.n, dtype=bool)
        taken[chosen] = True
        for column in chosen:
            cover.add(column)
        for _ in range(rounds):
            changed = False
            for place, old in enumerate(chosen):
                cover.remove(old)
                taken[old] = False
                best = int(np.where(taken, 1, cover.loss).argmin())
                if cover.loss[best] < cover.loss[old]:
                    chosen[place], changed = best, True
                taken[chosen[place]] = True
                cover.add(chosen[place])
            if not changed:
                break
        return np.array(chosen)


class Cover:
    """How often a set of columns covers each row.

    loss: int64 [n], for each column minus the number of its rows that are covered already.
    """

    def __init__(self, search: ExpansionSearch) -> None:
        self._search = search
        self._cover = np.zeros(search.m, dtype=np.int64)
        self.loss = np.zeros(search.n, dtype=np.int64)

    def add(self, column: int) -> None:
        """Take a column into the set."""
        rows = self._search.rows_of(column)
        self.loss -= self._search.users_of(rows[self._cover[rows] == 0])
        self._cover[rows] += 1

    def remove(self, column: int) -> None:
        """Take a column of the set out again."""
        rows = self._search.rows_of(column)
        self._cover[rows] -= 1
        self.loss += self._search.users_of(rows[self._cover[rows] == 0])
