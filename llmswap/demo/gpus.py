"""The simulated GPU as the program's own eyes see it: the engines' ledger in place of a driver."""

from pathlib import Path

from llmswap.fake_upstream.gpus import read
from llmswap.runtime.gpu import Gpu, Reader, Sample


def simulated(ledger: Path) -> Reader:
    """Give what reads the GPUs of a ledger. One that is not there yet has none in use."""

    def sample() -> Sample:
        return Sample(
            tuple(
                Gpu(
                    gpu.index,
                    f"GPU-simulated-{gpu.index}",
                    "simulated GPU",
                    total_bytes=gpu.total_bytes,
                    used_bytes=gpu.used_bytes,
                    by_pid=dict(gpu.by_pid),
                )
                for gpu in read(ledger).gpus
            ),
            problem="nobody has used the simulated GPU yet",
        )

    return sample
