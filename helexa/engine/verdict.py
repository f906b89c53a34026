"""Whether a checkpoint has filled its model: random weights in place of missing ones answer nonsense."""

from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils.loading_report import LoadStateDictInfo

from helexa.devices.faults import classify
from helexa.errors import StoreError


def empty_verdict(model: PreTrainedModel) -> LoadStateDictInfo:
    return LoadStateDictInfo(
        missing_keys=set(model.state_dict()),
        unexpected_keys=set(),
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )


def merge(verdict: LoadStateDictInfo, part: LoadStateDictInfo) -> None:
    verdict.missing_keys &= part.missing_keys
    verdict.unexpected_keys |= part.unexpected_keys


def refuse_unfit(path: Path, verdict: LoadStateDictInfo) -> None:
    if verdict.mismatched_keys:
        name, found, wanted = min(verdict.mismatched_keys)
        raise StoreError(
            f"the weights in {path} do not fit its config.json: {name} is {list(found)}, not "
            f"{list(wanted)}"
        )
    for words in verdict.conversion_errors.values():
        if classify(error := RuntimeError(words)) != "other":
            raise error  # the device's fault: transformers keeps whatever a conversion raised
    if verdict.conversion_errors:
        raise StoreError(
            f"the weights in {path} do not fit its config.json: {min(verdict.conversion_errors)} "
            "cannot be put together from them"
        )


def refuse_incomplete(path: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for names, what in ((missing, "lacks"), (unexpected, "holds unknown")):
        if some := sorted(names):
            raise StoreError(f"{path} {what} weights: {', '.join(some[:3])} ({len(some)} in all)")
