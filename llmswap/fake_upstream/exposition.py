"""`/metrics`: the fake's counts as Prometheus text, in vLLM's families, llama.cpp's or SGLang's."""

from collections.abc import Iterator, Mapping, Sequence

from aiohttp import web

from llmswap.fake_upstream.engine import Engine, Phase, Refused
from llmswap.fake_upstream.metrics import SLEEP_OPERATIONS, Histogram
from llmswap.fake_upstream.state import FAKE, Fake
from llmswap.fake_upstream.tokens import BLOCK_TOKENS, CACHE_BLOCKS_MAX

Labels = Mapping[str, str]
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")
FINISH_REASONS = ("stop", "length", "abort")


async def metrics(request: web.Request) -> web.Response:
    """Render them. llama.cpp and SGLang have them only when told to."""
    fake = request.app[FAKE]
    if fake.options.persona == "llamacpp":
        if not fake.options.metrics:
            raise Refused(501, "This server does not support metrics endpoint. Start it with `--metrics`")
        lines = list(_llamacpp(fake))
    elif fake.options.persona == "sglang":
        if not fake.options.metrics:
            raise Refused(404, "Not Found")
        lines = list(_sglang(fake))
    else:
        lines = list(_vllm(fake))
    return web.Response(text="\n".join(lines) + "\n", headers={"Content-Type": "text/plain; version=0.0.4"})


def _family(kind: str, name: str, values: list[tuple[Labels, float]]) -> Iterator[str]:
    suffix = "_total" if kind == "counter" else ""
    yield f"# HELP {name}{suffix} Simulated."
    yield f"# TYPE {name}{suffix} {kind}"
    for labels, value in values:
        yield f"{name}{suffix}{_labels(labels)} {float(value)!r}"


def _labels(labels: Labels) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    pairs = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _histogram(name: str, rows: Sequence[tuple[Labels, Histogram]]) -> Iterator[str]:
    yield f"# HELP {name} Simulated."
    yield f"# TYPE {name} histogram"
    for labels, histogram in rows:
        total = 0
        for bound, count in zip([*histogram.bounds, float("inf")], histogram.counts, strict=True):
            total += count
            edge = "+Inf" if bound == float("inf") else repr(float(bound))
            yield f"{name}_bucket{_labels({**labels, 'le': edge})} {float(total)!r}"
        yield f"{name}_sum{_labels(labels)} {histogram.sum!r}"
        yield f"{name}_count{_labels(labels)} {float(total)!r}"


def _vllm(fake: Fake) -> Iterator[str]:
    engine, counts = fake.engine, fake.engine.metrics
    base = {"model_name": fake.options.models[0], "engine": "0"}
    waiting = engine.queued
    gauges: dict[str, list[tuple[Labels, float]]] = {
        "num_requests_running": [(base, engine.running)],
        "num_requests_waiting": [(base, waiting)],
        "kv_cache_usage_perc": [(base, _kv_usage(engine))],
        "engine_sleep_state": [({**base, "sleep_state": state}, state == counts.sleep_state) for state in SLEEP_STATES],
        "sleep_mode_operations_in_flight": [
            ({**base, "operation": kind}, fake.journal.under_way(kind)) for kind in SLEEP_OPERATIONS
        ],
    }
    counters: dict[str, list[tuple[Labels, float]]] = {
        "prompt_tokens": [(base, counts.prompt_tokens)],
        "prompt_tokens_cached": [(base, counts.cached_tokens)],
        "generation_tokens": [(base, counts.output_tokens)],
        "prefix_cache_queries": [(base, counts.prompt_tokens)],
        "prefix_cache_hits": [(base, counts.cached_tokens)],
        "num_preemptions": [(base, 0)],
        "request_success": [
            ({**base, "finished_reason": reason}, counts.finished_by_reason[reason]) for reason in FINISH_REASONS
        ],
    }
    histograms = {
        "time_to_first_token_seconds": counts.ttft,
        "inter_token_latency_seconds": counts.itl,
        "e2e_request_latency_seconds": counts.e2e,
        "request_queue_time_seconds": counts.queue,
        "request_prefill_time_seconds": counts.prefill,
        "request_decode_time_seconds": counts.decode,
        "request_prompt_tokens": counts.prompt_sizes,
        "request_generation_tokens": counts.output_sizes,
    }
    for name, values in gauges.items():
        yield from _family("gauge", f"vllm:{name}", values)
    for name, values in counters.items():
        yield from _family("counter", f"vllm:{name}", values)
    for name, histogram in histograms.items():
        yield from _histogram(f"vllm:{name}", [(base, histogram)])
    sleeps = [({**base, "operation": operation}, row) for operation, row in counts.sleeps.items()]
    yield from _histogram("vllm:sleep_mode_operation_duration_seconds", sleeps)


def _kv_usage(engine: Engine) -> float:
    if engine.phase is not Phase.READY:
        return 0.0
    return min(1.0, (len(engine.cache) + engine.running) * BLOCK_TOKENS / (CACHE_BLOCKS_MAX * BLOCK_TOKENS))


def _sglang(fake: Fake) -> Iterator[str]:
    engine, counts = fake.engine, fake.engine.metrics
    base = {"model_name": fake.options.models[0], "engine_type": "unified", "tp_rank": "0", "pp_rank": "0"}
    gauges = {
        "num_running_reqs": engine.running,
        "num_queue_reqs": len(engine.waiting),
        "num_paused_reqs": engine.parked,
        "token_usage": _kv_usage(engine),
        "cache_hit_rate": counts.cached_tokens / counts.prompt_tokens if counts.prompt_tokens else 0,
        "gen_throughput": counts.output_tokens / counts.output_seconds if counts.output_seconds else 0,
    }
    counters: dict[str, list[tuple[Labels, float]]] = {
        "prompt_tokens": [(base, counts.prompt_tokens)],
        "generation_tokens": [(base, counts.output_tokens)],
        "cached_tokens": [({**base, "cache_source": "device"}, counts.cached_tokens)],
        "num_requests": [(base, counts.finished_by_reason.total())],
        "num_aborted_requests": [(base, counts.finished_by_reason["abort"])],
    }
    histograms = {
        "time_to_first_token_seconds": counts.ttft,
        "inter_token_latency_seconds": counts.itl,
        "e2e_request_latency_seconds": counts.e2e,
        "queue_time_seconds": counts.queue,
    }
    for name, value in gauges.items():
        yield from _family("gauge", f"sglang:{name}", [(base, value)])
    for name, values in counters.items():
        yield from _family("counter", f"sglang:{name}", values)
    for name, histogram in histograms.items():
        yield from _histogram(f"sglang:{name}", [(base, histogram)])


def _llamacpp(fake: Fake) -> Iterator[str]:
    engine, counts = fake.engine, fake.engine.metrics
    counters = {
        "prompt_tokens": counts.prompt_tokens - counts.cached_tokens,
        "prompt_tokens_cached": counts.cached_tokens,
        "prompt_seconds": counts.prompt_seconds,
        "tokens_predicted": counts.output_tokens,
        "tokens_predicted_seconds": counts.output_seconds,
        "n_decode": counts.output_tokens,
    }
    gauges = {
        "prompt_tokens_seconds": counts.prompt_tokens / counts.prompt_seconds if counts.prompt_seconds else 0,
        "predicted_tokens_seconds": counts.output_tokens / counts.output_seconds if counts.output_seconds else 0,
        "requests_processing": engine.running,
        "requests_deferred": len(engine.waiting),
        "n_busy_slots_per_decode": engine.running,
    }
    for name, value in counters.items():
        yield from _family("counter", f"llamacpp:{name}", [({}, value)])
    for name, value in gauges.items():
        yield from _family("gauge", f"llamacpp:{name}", [({}, value)])
