"""How long things take and how much memory they hold, by model. Figures only; what they mean is in `knobs.py`.

Source: upstreams.md 7.4. Totals are published measurements where 2.9 has a row; the split into phases and the whole
`gguf-8b-q4` row are estimates. Sizes are those of one of its `gpus`. `tiny` is ours: instant and weightless.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PHASES = ("import", "weights", "compile", "profile", "graphs")
COMPILE_CACHE_FACTOR = 0.12


@dataclass(frozen=True, slots=True)
class Profile:
    """One model's figures: seconds (`_s`), GiB (`_gib`) and milliseconds (`_ms`).

    Attributes:
        boot_s: Phase -> seconds, in boot order.
        sleep_s: Level -> seconds to fall asleep; the first level-1 sleep takes weights / 2 longer.
        wake_s: Level -> seconds to wake; for level 2 that is spent in `reload_weights`.
        ready_gib: Held while serving.
        residue_gib: Held while asleep.
        ttft_ms: Time to first token of a 256-token prompt.
    """

    boot_s: Mapping[str, float]
    sleep_s: tuple[float, float] = (0.0, 0.0)
    wake_s: tuple[float, float] = (0.0, 0.0)
    weights_gib: float = 0.0
    ready_gib: float = 0.0
    residue_gib: float = 0.0
    ttft_ms: float = 0.0
    itl_ms: float = 0.0
    sigterm_delay_s: float = 1.0
    gpus: int = 1


def _boot(*seconds: float) -> dict[str, float]:
    return dict(zip(PHASES, seconds, strict=True))


PROFILES: Mapping[str, Profile] = {
    "tiny": Profile(_boot(0, 0, 0, 0, 0), sigterm_delay_s=0.0),
    "0.6b": Profile(_boot(12, 2, 13, 6, 4), (0.09, 0.12), (0.27, 0.85), 1.2, 8, 1.1, 35, 5),
    "4b": Profile(_boot(14, 6, 20, 11, 7), (0.41, 0.45), (0.82, 2.6), 7.7, 20, 1.2, 55, 8),
    "8b": Profile(_boot(14, 10, 20, 11, 7), (0.8, 0.31), (2.2, 6.5), 15.3, 40, 1.3, 100, 12),
    "30b-a3b": Profile(_boot(14, 16, 8, 6, 4), (2.8, 0.4), (2.9, 17), 57, 72, 2.0, 110, 9),
    "70b-fp8-tp2": Profile(_boot(16, 30, 24, 12, 8), (3.5, 0.5), (3.7, 20), 33, 60, 3.5, 220, 24, gpus=2),
    "235b-fp8-tp4": Profile(_boot(18, 50, 14, 11, 7), (5.9, 0.6), (5.5, 60), 55, 72, 5.0, 300, 28, gpus=4),
    "gguf-8b-q4": Profile(
        _boot(0.3, 3.4, 0, 0.3, 0), weights_gib=4.9, ready_gib=6.5, ttft_ms=120, itl_ms=14, sigterm_delay_s=0.5
    ),
}

DEFAULT_PROFILE: Mapping[str, str] = {
    "generic": "tiny",
    "llamacpp": "gguf-8b-q4",
    "sglang": "8b",
    "vllm": "8b",
}
