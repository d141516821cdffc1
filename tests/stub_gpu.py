"""A simulated GPU that a real llmswap can ask: the ledger of its engines, read by our stub of NVIDIA's binding."""

from pathlib import Path

from llmswap.fake_upstream.ledger import Holder, Ledger

ROOT = Path(__file__).parents[1]
HELD_GIB = 0.1  # by somebody else, from the start


def stub_environ(ledger: Path, fault: Path) -> dict[str, str]:
    """Give the environment in which a program finds the stub, and the stub its GPU and what ails it."""
    return {
        "PYTHONPATH": f"{ROOT / 'tests' / 'runtime' / 'nvml_stub'}:{ROOT}",
        "NVML_STUB_LEDGER": str(ledger),
        "NVML_STUB_FAULT": str(fault),
    }


class StubGpu:
    """One that is well until it is told to ail.

    Attributes:
        ledger: For the engines, and for who wants to look.
        environ: For llmswap.
    """

    def __init__(self, folder: Path, total_gib: float) -> None:
        self.ledger, self._fault = folder / "gpu.json", folder / "fault"
        self.environ = stub_environ(self.ledger, self._fault)
        Ledger(self.ledger, total_gib, 0.0, Holder("nobody")).hold(HELD_GIB)

    def ail(self, fault: str) -> None:
        """Have the driver ail of what tests/runtime/nvml_stub knows; empty: it is well again."""
        new = self._fault.with_suffix(".new")
        new.write_text(fault)
        new.replace(self._fault)
