"""What became of a swap, in one word of a closed set: the same for spans and metrics."""

from llmswap.core.events import StartFailed, UpstreamExited, WakeFailed
from llmswap.telemetry.names import SWAP_OUTCOMES

OK, TIMEOUT, EXIT, UNHEALTHY, OOM, ABORTED = SWAP_OUTCOMES


def outcome_of(event: StartFailed | WakeFailed | UpstreamExited) -> str:
    """Say how a start or a wake failed, as far as its reason begins with our own words for it."""
    reason = event.reason
    if isinstance(event, StartFailed) and event.out_of_memory:
        return OOM
    if isinstance(event, StartFailed) and event.timed_out:
        return TIMEOUT
    if isinstance(event, StartFailed) and event.out_of_memory:
        return OOM
    if reason.startswith("was killed by SIGKILL"):
        return OOM  # nobody else kills what is starting: we say so if we do
    if isinstance(event, UpstreamExited) or reason.startswith(("exited with code", "was killed by")):
        return EXIT
    return TIMEOUT if "did not answer within" in reason else UNHEALTHY
