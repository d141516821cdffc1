"""Whose device memory is whose: by the pids that a driver lists, else by estimate, marked as such."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from llmswap.core.fleet import ModelId
from llmswap.runtime.gpu import Gpu
from llmswap.runtime.memory import doubt
from llmswap.runtime.tree import look_up
from llmswap.runtime.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Share:
    """A model's device memory.

    Attributes:
        by_gpu: Bytes by the GPU's label.
        estimated: The driver does not tell; it is what has come since nobody was awake.
        problem: Why it is an estimate, or not known at all, in a line; empty if it was measured.
    """

    by_gpu: Mapping[str, int] = field(default_factory=dict)
    estimated: bool = False
    problem: str = ""


def attribute(
    gpus: Collection[Gpu],
    trees: Mapping[ModelId, Upkeep],
    awake: Collection[ModelId],
    before: Mapping[str, int],
) -> dict[ModelId, Share]:
    """Find each model's share. Reads a little of /proc.

    Args:
        gpus: As they are now.
        trees: The processes of those that are up.
        awake: Those that may hold device memory.
        before: Bytes used, by label, when no model was up.
    """
    shares = {model: _listed(gpus, tree, _others(trees, model)) for model, tree in trees.items()}
    blind = [model for model in awake if model in shares and shares[model].problem]
    if len(blind) == 1 and len(awake) == 1:
        (model,) = blind
        shares[model] = _difference(gpus, shares, model, before)
    return shares


def unattributed(gpu: Gpu, shares: Mapping[ModelId, Share]) -> int | None:
    """Give what no model accounts for: the driver, leaks, other programs. None if it is not known what is used."""
    if gpu.used_bytes is None:
        return None
    return max(0, gpu.used_bytes - sum(share.by_gpu.get(gpu.label, 0) for share in shares.values()))


def _others(trees: Mapping[ModelId, Upkeep], model: ModelId) -> set[int]:
    return {number for other, tree in trees.items() if other != model for number, _ in tree.aliases}


def _listed(gpus: Collection[Gpu], tree: Upkeep, taken: Collection[int]) -> Share:
    """Sum what the driver lists under the tree's pids, or under their numbers in a container.

    Such a number counts only if it means nobody here, and one process of one model there.
    """
    inner: dict[int, int] = {}
    for number, _ in tree.aliases:
        inner[number] = inner.get(number, 0) + 1
    by_gpu: dict[str, int] = {}
    matched = False
    for gpu in gpus:
        for pid, used in (gpu.by_pid or {}).items():
            if pid not in tree.pids and (inner.get(pid) != 1 or pid in taken or look_up(pid) is not None):
                continue
            matched = True
            if used is None:
                return Share(problem=gpu.problem or f"GPU {gpu.label}: the driver keeps a share to itself")
            by_gpu[gpu.label] = by_gpu.get(gpu.label, 0) + used
    return Share(by_gpu, problem="" if matched else doubt(gpus, tree.pids))


def _difference(
    gpus: Collection[Gpu], shares: Mapping[ModelId, Share], model: ModelId, before: Mapping[str, int]
) -> Share:
    by_gpu = {}
    for gpu in gpus:
        if gpu.used_bytes is not None and gpu.label in before:
            others = sum(share.by_gpu.get(gpu.label, 0) for other, share in shares.items() if other != model)
            grown = gpu.used_bytes - before[gpu.label] - others
            if grown > 0:
                by_gpu[gpu.label] = grown
    return Share(by_gpu, estimated=bool(by_gpu), problem=shares[model].problem)
