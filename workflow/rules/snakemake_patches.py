"""Where Snakemake is slow, content too early or silent: what is patched, and why.

Lies beside the rules because Snakemake lets them import modules of their own folder.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import snakemake.io
import snakemake.resources
from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError

from expander_sae.machine import folder_owner

_LOOKS = ("--unlock", "--lint", "--list-rules", "--list-target-rules", "--summary", "--dag")
"""Options under which the workflow is looked at and nothing of it runs."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def quick(function: _Function) -> _Function:
    """`function` with its parameters worked out once.

    Snakemake (9.27) inspects the signature of every function several times a job: a sixteenth of the planning
    of 5,100 runs. `overwrite_function_params` is its own means for functions that take others' parameters.
    """
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def plan_quickly() -> None:
    """Spare the planning of thousands of jobs two things that take time and change nothing.

    The graph is millions of objects that stay: looking through them for garbage every few hundred allocations
    takes a tenth of the time. The method that works out each resource of each job gets the same treatment
    as our own functions; versions before 9.13 have no such method.
    """
    gc.set_threshold(1_000_000, 10, 10)
    if hasattr(snakemake.resources, "Resource"):
        quick(snakemake.resources.Resource.evaluate)


def compare_contents() -> None:
    """Let Snakemake compare what an input holds, of whatever size, before it calls a newer one changed.

    It does so up to 1 MB only, so that a study that was copied (`cp -r`, rsync without times) would be made
    again: all of its files are new there. Ancient inputs are left out: their times say nothing, and a pool
    can be larger than memory.
    """

    async def eligible(file: Any, threshold: int) -> bool:
        here = not file.is_ancient and await file.exists_local()
        return here and not os.path.isdir(file.file) and not file.is_fifo()

    snakemake.io._IOFile.is_checksum_eligible = eligible


def placed(workflow: Any, path: str) -> str:
    """Where a path of the rules lies: under the prefix that another workflow gives this one, if it does."""
    found = workflow.modifier.path_modifier.replace_prefix(path)
    if not found.endswith(path):
        raise WorkflowError(f"replace_prefix: found {found} for {path}, expected `prefix`, which keeps paths")
    return found


def own_folder(workflow: Any) -> None:
    """Record that this process works in the folder: Snakemake's lock does not say whose it is.

    Called while the workflow is read and not by onstart, which comes after the lock. The record is removed as
    the process ends, in whatever way but a kill: onsuccess is not called where nothing was to be done. What
    only looks leaves no record: `make` holds them while it calls --unlock.
    """
    if not workflow.is_main_process:
        return
    # By this a later run finds the jobs of one that was killed.
    os.environ[folder_owner.VARIABLE] = folder_owner.Owner.this_process().name
    if not workflow.output_settings.dryrun and not set(_LOOKS) & set(sys.argv):
        folder_owner.write()
        atexit.register(folder_owner.remove, Path.cwd())


def require_targets(workflow: Any) -> None:
    """Raise a `WorkflowError` where a file that was asked for is still missing after a success.

    Snakemake leaves out what is missing behind an ancient input that is itself made again, and calls that
    success (github.com/snakemake/snakemake/issues/4166). Nothing is checked where only a part of the files
    was asked for, or where they lie elsewhere.
    """
    settings = workflow.dag_settings
    partial = settings.until or settings.omit_from or settings.batch or workflow.touch
    later = workflow.remote_execution_settings.immediate_submit
    if partial or later or workflow.storage_settings.default_storage_provider:
        return
    asked = _files_of(workflow, settings.targets or [workflow.default_target])
    missing = [file for file in asked if not os.path.exists(file)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        why = "since what it is made from was itself made again; the same command makes it now"
        raise WorkflowError(f"{missing[0]}{more}: not made, {why}")


def _files_of(workflow: Any, targets: Any) -> Iterator[str]:
    """Files that the targets name, or that the rules that they name state without wildcards."""
    for target in targets:
        if workflow.is_rule(target):
            rule = workflow.get_rule(target)
            stated = [str(file) for file in [*rule.input, *rule.output] if isinstance(file, str)]
            yield from (file for file in stated if "{" not in file)
        else:
            yield target
