"""What may be turned while the fake runs: each field is a command line flag and a key of `PATCH /_fake/config`."""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from llmswap.fake_upstream.profiles import Profile
from llmswap.fake_upstream.tokens import OutputLength

PROMPT_TOKENS_OF_TTFT = 256
TTFT_BASE_MS = 30.0


class BadKnob(ValueError):
    """A knob that does not exist, or a value it cannot take."""


def _knob(flag: str, doc: str, *, default: Any = MISSING, low: float = 0.0) -> Any:  # noqa: ANN401  as dataclasses.field
    return field(default=default, metadata={"flag": flag, "help": doc, "low": low})


@dataclass(slots=True)
class Knobs:
    """Every delay is in its unit before `time_scale`, which multiplies all of them."""

    ttft_ms: float = _knob("--ttft", "time to first token of a 256-token prompt, ms")
    itl_ms: float = _knob("--itl", "gap between tokens, ms")
    sleep_l1_s: float = _knob("--sleep-l1", "seconds to fall asleep, level 1")
    wake_l1_s: float = _knob("--wake-l1", "seconds to wake from level 1")
    sleep_l2_s: float = _knob("--sleep-l2", "seconds to fall asleep, level 2")
    wake_l2_s: float = _knob("--wake-l2", "seconds to reload the weights after level 2")
    first_sleep_extra_s: float = _knob("--first-sleep-extra", "extra seconds of the first level-1 sleep")
    gpu_ready_gib: float = _knob("--gpu-ready", "GPU memory held while serving, GiB on each GPU")
    gpu_weights_gib: float = _knob("--gpu-weights", "of it the weights, GiB")
    gpu_l1_gib: float = _knob("--gpu-l1", "GPU memory held asleep at level 1, GiB")
    gpu_l2_gib: float = _knob("--gpu-l2", "GPU memory held asleep at level 2, GiB")
    host_l1_gib: float = _knob("--host-l1", "host memory pinned at level 1, GiB (only reported)")
    sigterm_delay_s: float = _knob("--sigterm-delay", "seconds from SIGTERM to exit 0")
    time_scale: float = _knob("--time-scale", "multiplies every delay; 0 for none", default=1.0)
    prefill_ms_per_token: float = _knob(
        "--prefill-ms-per-token", "prefill per prompt token over a 30 ms base; -1 derives it from --ttft",
        default=-1.0, low=-1.0,
    )  # fmt: skip
    ttft_std: float = _knob("--ttft-std", "spread of the first token, as a fraction", default=0.2)
    itl_std: float = _knob("--itl-std", "spread of the token gap, as a fraction", default=0.15)
    load_factor: float = _knob("--load-factor", "token gap multiplier at full concurrency", default=2.0)
    max_num_seqs: int = _knob("--max-num-seqs", "requests run at once; the rest queue", default=16, low=1)
    post_wake_ttft_mult: float = _knob(
        "--post-wake-first-ttft-mult", "first token after a wake is this much later", default=6.0
    )
    output_tokens: str = _knob(
        "--output-tokens", "lognormal:MEDIAN or exact:N, cut at the request's limit", default="lognormal:180"
    )
    reasoning_tokens: int = _knob("--reasoning-tokens", "leading output tokens that are reasoning", default=0)

    @classmethod
    def of(cls, profile: Profile) -> "Knobs":
        """Start from a profile's figures."""
        return cls(
            ttft_ms=profile.ttft_ms,
            itl_ms=profile.itl_ms,
            sleep_l1_s=profile.sleep_s[0],
            wake_l1_s=profile.wake_s[0],
            sleep_l2_s=profile.sleep_s[1],
            wake_l2_s=profile.wake_s[1],
            first_sleep_extra_s=profile.weights_gib / 2,
            gpu_ready_gib=profile.ready_gib,
            gpu_weights_gib=profile.weights_gib,
            gpu_l1_gib=profile.residue_gib,
            gpu_l2_gib=profile.residue_gib,
            host_l1_gib=1.4 * profile.weights_gib,
            sigterm_delay_s=profile.sigterm_delay_s,
        )

    def turn(self, name: str, value: object) -> None:
        """Set one knob from a flag's text or a JSON value.

        Raises:
            BadKnob: No such knob, or not a value for it.
        """
        knob = next((f for f in fields(self) if f.name == name), None)
        if knob is None:
            raise BadKnob(f"no knob {name!r}; there are {', '.join(f.name for f in fields(self))}")
        setattr(self, name, _convert(knob, value))

    def prefill_ms(self, prompt_tokens: int) -> float:
        """Time to the first token of a prompt of this length, before spread and time scale."""
        base = min(TTFT_BASE_MS, self.ttft_ms)
        per_token = self.prefill_ms_per_token
        if per_token < 0:
            per_token = (self.ttft_ms - base) / PROMPT_TOKENS_OF_TTFT
        return base + per_token * prompt_tokens


def _convert(knob: "Field[Any]", value: object) -> float | int | str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadKnob(f"{knob.name}: {value!r} is neither a number nor text")
    try:
        if knob.name == "output_tokens":
            return str(OutputLength.parse(str(value)))
        number = int(value) if knob.type is int else float(value)
    except ValueError as error:
        raise BadKnob(f"{knob.name}: {error}") from error
    if not knob.metadata["low"] <= number < float("inf"):
        raise BadKnob(f"{knob.name}: {value} is out of range, least is {knob.metadata['low']:g}")
    return number
