"""The records of claims.json."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

from expander_sae.claims.reasons import reason
from expander_sae.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, Judged, Numbers, Ruling


def claim_record(ruling: Ruling, converged: Ruling | None) -> dict[str, Any]:
    """The record of a claim; `converged`: its ruling without the diverged runs, where there are any.

    A claim whose two verdicts differ is inconclusive.
    """
    case, claim = ruling.case, ruling.case.claim
    record = _ruling_record(ruling)
    if converged and converged.verdict != ruling.verdict:
        both = f"with the diverged runs {ruling.verdict}, without them {converged.verdict}"
        record |= {"verdict": INCONCLUSIVE, "reason": f"{both}: {record['reason']}"}
    if converged and converged.points_to != ruling.points_to:
        record["points_to"] = INCONCLUSIVE
    return _rounded({
        **record,
        "id": claim.id,
        "setting": case.setting.name,
        "topic": claim.topic,
        "sentence": claim.sentence,
        "source": claim.source,
        "statistic": claim.statistic,
        "threshold": str(claim.region),
        "descriptive": record["verdict"] not in (HOLDS, FAILS) and (case.known or ruling.fewest is not None),
        "level": case.level,
        "level_family": case.level_family,
        "without_diverged": _ruling_record(converged) if converged else None,
    })  # fmt: skip


def _ruling_record(ruling: Ruling) -> dict[str, Any]:
    """The verdict, the numbers of the comparison on which it hangs, and every comparison."""
    shown = asdict(ruling.deciding or Judged())
    return {
        **{field.name: shown[field.name] for field in fields(Numbers)},
        "verdict": ruling.verdict,
        "points_to": ruling.points_to,
        "reason": reason(ruling),
        "comparisons": [asdict(one) for one in ruling.comparisons],
    }


def _rounded(value: Any) -> Any:
    """The value with six significant digits, so that last bits do not change the file; None for NaN."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
