"""Why a claim got its verdict, in words."""

from __future__ import annotations

from expander_sae.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_RUN, Judged, Ruling

_NAMED = 3
"""Missing values that a reason names; the comparisons in claims.json name all of theirs."""


def reason(ruling: Ruling) -> str:
    """Where the deciding interval lies, what is missing, and what leaves the claim undecided."""
    case = ruling.case
    if not ruling.comparisons:
        return f"setting {case.setting.name} names no cell for it"
    parts = []
    if ruling.deciding is not None and ruling.verdict != NOT_RUN:
        parts.append(_where_it_lies(ruling.deciding, ruling))
        if len(ruling.comparisons) > 1:
            parts.append(_counts(ruling))
    missing = list(dict.fromkeys(text for one in ruling.comparisons for text in one.missing))
    if missing:
        more = len(missing) - _NAMED
        tail = f"; and {more} more, which claims.json names" if more > 0 else ""
        parts.append(f"missing in setting {case.setting.name}: " + "; ".join(missing[:_NAMED]) + tail)
    if ruling.verdict not in (HOLDS, FAILS):
        parts += _descriptive(ruling)
    if ruling.diverged:
        parts.append("diverged seeds: " + ", ".join(str(seed) for seed in ruling.diverged))
    return "; ".join(parts)


def _counts(ruling: Ruling) -> str:
    verdicts = [one.verdict for one in ruling.comparisons]
    named = [name for name in (HOLDS, FAILS, INCONCLUSIVE) if name in verdicts]
    listed = ", ".join(f"{verdicts.count(name)} {name}" for name in named)
    asked = "all must hold" if ruling.case.claim.every else "one must hold"
    return f"of {len(verdicts)} comparisons ({asked}): {listed}"


def _descriptive(ruling: Ruling) -> list[str]:
    """Why the claim could not be decided in any case, and which way the numbers lean."""
    why = []
    if ruling.case.known:
        why.append("written after rows of this setting were read")
    if ruling.fewest is not None:
        why.append(f"{ruling.fewest} seeds in common, {ruling.case.register.minimum_seeds} needed to decide")
    leans = [f"points to {ruling.points_to}"] if ruling.points_to != ruling.verdict else []
    return ["descriptive: " + ", ".join(why), *leans] if why else []


def _where_it_lies(one: Judged, ruling: Ruling) -> str:
    claim = ruling.case.claim
    name = f"{one.label}: " if one.label else ""
    if one.interval_deciding is None:
        return f"{name}no interval can be given"
    low, high = one.interval_deciding
    if low == high:
        return f"{name}{one.estimate:.4g} against {claim.region}"
    place = {HOLDS: "lies within", FAILS: "lies outside", INCONCLUSIVE: "does not decide"}[one.points_to]
    if claim.lower_bound and claim.region.contains(one.interval_deciding):
        place = "is a lower bound and cannot prove"
    return f"{name}{one.estimate:.4g} [{low:.4g}, {high:.4g}] {place} {claim.region}"
