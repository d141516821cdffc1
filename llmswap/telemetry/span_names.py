"""Every name of a span and of an attribute, once. `http.*` are stable in OpenTelemetry, `gen_ai.*` may still change.

Attributes hold numbers, closed sets, names of the configuration, and of what a client wrote only the path and the
model's name. Never prompts, answers, headers or keys.
"""

# Spans
QUEUE = "llmswap.queue"
SWAP = "llmswap.swap"
DRAIN = "llmswap.swap.drain"
FREE_WAIT = "llmswap.swap.free_wait"
STOP = "llmswap.upstream.stop"
SLEEP = "llmswap.upstream.sleep"
START = "llmswap.upstream.start"
WAKE = "llmswap.upstream.wake"
HEALTH_WAIT = "llmswap.upstream.health_wait"
WARMUP = "llmswap.upstream.warmup"

# Events
FIRST_CHUNK = "first_chunk"
HEALTH_CHANGED = "health"
DECIDED = "decided"

# HTTP
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
PATH = "url.path"
SCHEME = "url.scheme"
CLIENT_ADDRESS = "client.address"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# Generative AI
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

# Ours
REQUEST_ID = "llmswap.request.id"
MODEL = "llmswap.model"
RESIDENCY = "llmswap.residency"
OUTCOME = "llmswap.outcome"
ESTIMATED = "llmswap.usage.estimated"
WAIT_S = "llmswap.queue.wait_s"
POSITION = "llmswap.queue.position"
DEPTH = "llmswap.queue.depth"
WAIT_CAUSE = "llmswap.wait.cause"
WAIT_PART_S = "llmswap.wait.{}_s"  # for each cause that a wait was spent on
WAIT_OUTCOME = "llmswap.queue.outcome"
CHUNKS = "llmswap.stream.chunks"
STREAM_BYTES = "llmswap.stream.bytes"
MAX_GAP_S = "llmswap.stream.max_gap_s"
FROM_MODEL = "llmswap.swap.from_model"
TO_MODEL = "llmswap.swap.to_model"
SWAP_KIND = "llmswap.swap.kind"
SWAP_REASON = "llmswap.swap.reason"
SWAP_ID = "llmswap.swap.id"
JOINED = "llmswap.swap.joined_requests"
SWAP_OUTCOME = "llmswap.swap.outcome"
THRASH = "llmswap.swap.thrash"
FREED_BYTES = "llmswap.swap.gpu_freed_bytes"
BACKEND = "llmswap.backend"
GENERATION = "llmswap.generation"
PID = "process.pid"
EXIT_CODE = "process.exit.code"
ANSWER = "llmswap.health.answer"
