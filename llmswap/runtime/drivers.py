"""Whom to ask about GPUs."""

from dataclasses import dataclass, field

from llmswap.runtime.amd import AmdReader
from llmswap.runtime.gpu import GpuWatch, Reader
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.xids import XidWatch


@dataclass(frozen=True, slots=True)
class Drivers:
    """The drivers of this machine, there or not.

    Attributes:
        gpus: NVIDIA's.
        xids: Hears what that driver reports; None for nobody. To be started with the first GPU that can be read.
        amd: AMD's, if there are any.
    """

    gpus: GpuWatch
    xids: XidWatch | None = None
    amd: AmdReader = field(default_factory=AmdReader)


def find_drivers(read_gpus: Reader | None = None) -> Drivers:
    """Give those of this machine; with `read_gpus` in the place of NVIDIA's."""
    if read_gpus is not None:
        return Drivers(GpuWatch(read_gpus))
    nvml = NvmlReader()
    return Drivers(GpuWatch(nvml, read_fully=nvml.fully), XidWatch(nvml.module, lambda: nvml.well))
