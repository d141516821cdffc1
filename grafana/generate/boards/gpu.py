"""GPUs and memory: what is full, what fits, what do sleepers hold, is the hardware well."""

from grafana_foundation_sdk.models import dashboard as d

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import CLEAR, GOOD, LIMIT, OFF
from grafana.generate.panels import Query, Words, bars, curves, lanes, levels, line_over, tile
from grafana.generate.promql import LATELY, by, grown, pick, rate, ratio
from grafana.generate.tables import Column, rows, state_column
from llmswap.telemetry import names

_UNSEEN = "No data because no GPU can be seen: llmswap_gpu_poll_success says whether that is a fault."
_ASLEEP = f"on (job, instance, model) group_left () ({pick(names.MODEL_STATE, state='asleep')} == 1)"

_FULL = bars(
    Words(
        "GPU memory in use",
        "By anybody (`llmswap_gpu_memory_used_bytes` of `_total_bytes`). Red is no fault by itself: a resident model"
        " is meant to fill it.",
        _UNSEEN,
    ),
    Query(
        f"{by('gpu', pick(names.GPU_MEMORY_USED))} / {by('gpu', pick(names.GPU_MEMORY_TOTAL))}", "GPU {{gpu}}", now=True
    ),
    "percentunit",
    limits=levels((0.9, "orange"), (0.98, "red")),
    top=1,
    decimals=0,
)
_TILES = (
    (6, _FULL),
    (
        3,
        tile(
            Words(
                "Use",
                "Share of time in which a kernel ran, the busiest GPU (`llmswap_gpu_utilization_ratio`).",
                "no GPU",
            ),
            Query(by("", pick(names.GPU_UTILIZATION), "max"), "use"),
            "percentunit",
            spark=True,
            decimals=0,
        ),
    ),
    (
        3,
        tile(
            Words("Power", "All GPUs together (`llmswap_gpu_power_watts`).", "no GPU"),
            Query(by("", pick(names.GPU_POWER)), "power"),
            "watt",
            spark=True,
            decimals=0,
        ),
    ),
    (
        3,
        tile(
            Words(
                "Hottest",
                "The hottest sensor (`llmswap_gpu_temperature_celsius`). Orange from 80, red from 90 °C.",
                "no GPU",
            ),
            Query(by("", pick(names.GPU_TEMPERATURE), "max"), "temperature"),
            "celsius",
            limits=levels((80, "orange"), (90, "red"), base="text"),
            spark=True,
            decimals=0,
        ),
    ),
    (
        3,
        tile(
            Words(
                "Not ours",
                "GPU memory of the driver, leaks and strangers (`llmswap_gpu_memory_unattributed_bytes`). Growing: the"
                " next load may not fit; `nvidia-smi` lists who it is.",
                "no GPU",
            ),
            Query(by("", pick(names.GPU_MEMORY_UNATTRIBUTED)), "other"),
            "bytes",
            limits=levels((2e9, "orange"), (8e9, "red"), base="text"),
            decimals=1,
        ),
    ),
    (
        3,
        tile(
            Words(
                "Host memory left",
                "Share that can be had without swapping (`llmswap_host_memory_available_bytes`). Below 5 % the kernel"
                " kills somebody soon.",
                "not scraped",
            ),
            Query(f"min({pick(names.HOST_MEMORY_AVAILABLE)} / {pick(names.HOST_MEMORY_TOTAL)})", "left"),
            "percentunit",
            limits=levels((0.05, "orange"), (0.15, "green"), base="red"),
            decimals=0,
        ),
    ),
    (
        3,
        tile(
            Words(
                "GPUs seen",
                "1: the last look at the GPUs worked (`llmswap_gpu_poll_success`); 0: none is there, or the driver"
                " does not answer, and the log says which.",
                "not scraped",
            ),
            Query(by("", pick(names.GPU_POLL_SUCCESS), "min"), "seen", now=True),
            limits=levels((1, "green"), base="orange"),
        ).mappings(
            [
                d.ValueMap(
                    options={
                        "0": d.ValueMappingResult(text="no", color="orange", index=0),
                        "1": d.ValueMappingResult(text="yes", color=GOOD, index=1),
                    }
                )
            ]
        ),
    ),
)
_MEMORY = line_over(
    curves(
        Words(
            "GPU memory, by model",
            "Device memory of each model's processes (`llmswap_model_gpu_memory_bytes`), *other* is nobody of ours"
            " (`llmswap_gpu_memory_unattributed_bytes`). The dashed line is what there is.",
            _UNSEEN,
        ),
        [
            Query(by("model", pick(names.MODEL_GPU_MEMORY)), "{{model}}"),
            Query(by("", pick(names.GPU_MEMORY_UNATTRIBUTED)), "other"),
            Query(by("", pick(names.GPU_MEMORY_TOTAL)), "total"),
        ],
        "bytes",
        colours={"other": OFF},
        stacked=True,
        legend="right",
    ),
    "total",
    LIMIT,
)
_FITS = rows(
    Words(
        "Footprints, and who fits",
        "The most each model was seen to hold when it was ready and asleep (`llmswap_model_learned_*_bytes`), and"
        " whether it fits into what is free now (`llmswap_model_fits`, `llmswap_model_fit_headroom_bytes`: below 0"
        " lacks). Two models whose *ready* columns add up to less than the GPU may live together: `groups`, `matrix`.",
        "No data because no model has been up yet, or no GPU can be seen.",
    ),
    {"model": "Model"},
    [
        state_column(by("model", pick(names.MODEL_STATE_CODE), "max")),
        Column("GPU, ready", by("model", pick(names.MODEL_LEARNED_GPU, state="ready")), "bytes", decimals=1),
        Column("GPU, asleep", by("model", pick(names.MODEL_LEARNED_GPU, state="asleep")), "bytes", decimals=1),
        Column(
            "Fits now",
            by("model", pick(names.MODEL_FITS), "min"),
            "none",
            properties={
                "mappings": [
                    {
                        "type": "value",
                        "options": {
                            "0": {"text": "no", "color": "dark-orange", "index": 0},
                            "1": {"text": "yes", "color": "dark-green", "index": 1},
                        },
                    }
                ],
                "custom.cellOptions": {"type": "color-background", "mode": "basic"},
            },
            width=80,
        ),
        Column("Room left", by("model", pick(names.MODEL_FIT_HEADROOM), "min"), "bytes", decimals=1),
        Column("Host, ready", by("model", pick(names.MODEL_LEARNED_HOST, state="ready"), "max"), "bytes", decimals=1),
        Column("Host, asleep", by("model", pick(names.MODEL_LEARNED_HOST, state="asleep"), "max"), "bytes", decimals=1),
    ],
    sort="GPU, ready",
)
_SLEEPERS = line_over(
    curves(
        Words(
            "Host memory of sleepers",
            "What sleeping models hold (`llmswap_model_host_memory_bytes`, `anon` and `shmem`, while `asleep`); the"
            " dashed line is what the host has. Above 70 % `LLMSwapSleepingModelsHoldRAM` fires: let fewer sleep"
            " (`sleepers`), or at level 2.",
            "No data because no model sleeps.",
        ),
        [
            Query(by("model", f"{pick(names.MODEL_HOST_MEMORY, kind='~anon|shmem')} * {_ASLEEP}"), "{{model}}"),
            Query(by("", pick(names.HOST_MEMORY_TOTAL), "max"), "total"),
        ],
        "bytes",
        stacked=True,
    ),
    "total",
    LIMIT,
)
_HOST = curves(
    Words(
        "Host memory available",
        "Without swapping (`llmswap_host_memory_available_bytes`). Falling with each sleeper is expected; towards 0 it"
        " is not.",
        "No data because no llmswap is scraped.",
    ),
    [Query(by("instance", pick(names.HOST_MEMORY_AVAILABLE), "min"), "{{instance}}")],
    "bytes",
)
_USE = curves(
    Words(
        "Use",
        "Share of time in which a kernel ran (`llmswap_gpu_utilization_ratio`). Low with a full queue: swaps, or an"
        " engine that waits for its CPU.",
        _UNSEEN,
    ),
    [Query(by("gpu", pick(names.GPU_UTILIZATION), "max"), "GPU {{gpu}}")],
    "percentunit",
).max(1)
_POWER = curves(
    Words(
        "Power, and its limit",
        "Draw (`llmswap_gpu_power_watts`) and what is enforced (`llmswap_gpu_power_limit_watts`).",
        _UNSEEN,
    ),
    [
        Query(by("gpu", pick(names.GPU_POWER)), "GPU {{gpu}}"),
        Query(by("gpu", pick(names.GPU_POWER_LIMIT)), "GPU {{gpu}} limit"),
    ],
    "watt",
)
_POWER.override_by_regexp(
    "/limit$/",
    [
        d.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": LIMIT}),
        d.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
        d.DynamicConfigValue("custom.fillOpacity", 0),
    ],
)
_ENERGY = curves(
    Words(
        "Energy per 1,000 output tokens",
        "Joules of all GPUs for the tokens of all models (`llmswap_gpu_energy_joules_total`, `llmswap_tokens_total`);"
        " idle time and swaps are paid for, too.",
        "No data because no GPU tells its energy, or no tokens were made lately.",
    ),
    [Query(f"1000 * {ratio(rate(names.GPU_ENERGY), rate(names.TOKENS, token_type='output'))}", "joules per 1,000")],
    "joule",
    every="5m",
)
_HEAT = curves(
    Words(
        "Temperature",
        "`llmswap_gpu_temperature_celsius`. The line at 83 °C is where most cards begin to slow down.",
        _UNSEEN,
    ),
    [Query(by("gpu sensor", pick(names.GPU_TEMPERATURE), "max"), "GPU {{gpu}} {{sensor}}")],
    "celsius",
    limit=(83, LIMIT),
)
_CLOCKS = curves(
    Words("Clocks", "`llmswap_gpu_clock_hertz`. A step down under load: see *Slowed down*.", _UNSEEN),
    [Query(by("gpu clock", pick(names.GPU_CLOCK), "max"), "GPU {{gpu}} {{clock}}")],
    "hertz",
)
_SLOWED = lanes(
    Words(
        "Slowed down",
        "A lane per reason for lower clocks (`llmswap_gpu_throttled`). `sw_power_cap` is normal at full load; the"
        " thermal ones and `power_brake` are not: airflow, power supply.",
        "No data because no GPU tells it.",
    ),
    [Query(by("gpu reason", pick(names.GPU_THROTTLED), "max"), "{{gpu}} {{reason}}")],
    mappings=[
        d.ValueMap(
            options={
                "0": d.ValueMappingResult(text=" ", color=CLEAR, index=0),
                "1": d.ValueMappingResult(text="slowed", color="orange", index=1),
            }
        )
    ],
)
_PCIE = curves(
    Words(
        "PCIe traffic",
        "Bytes per second to (`rx`) and from (`tx`) the GPUs (`llmswap_gpu_pcie_bytes_total`). Loads and wakes are the"
        " peaks: far below the link's speed, the disk or one core is what they wait for.",
        "No data because no GPU counts its traffic.",
    ),
    [Query(rate(names.GPU_PCIE, of="gpu direction"), "GPU {{gpu}} {{direction}}")],
    "Bps",
)
_FAULTS = rows(
    Words(
        "Faults of the hardware",
        "XID errors in the time range (`llmswap_gpu_xid_errors_total`): those of the hardware stand here at 0; 13, 31"
        " and 43 are an application's. 48, 79, 95: reset or reboot, then look at the card.",
        "No data because no GPU reports errors.",
    ),
    {"gpu": "GPU", "xid": "XID"},
    [
        Column("Errors", grown(names.GPU_XID_ERRORS, of="gpu xid"), decimals=0, limits=((0.5, "dark-red"),)),
        Column(
            "Last seen",
            by("gpu xid", f"time() - {pick(names.GPU_XID_LAST)}", "min"),
            "s",
            decimals=0,
        ),
    ],
    sort="Errors",
    links=False,
)
_ECC = curves(
    Words(
        "Memory errors and replaced rows",
        "ECC errors lately (`llmswap_gpu_ecc_errors_total`) and rows that were replaced (`llmswap_gpu_remapped_rows`)."
        " Uncorrected ones, or a pending row: reset the card; a failed one: return it.",
        "No data because no GPU counts them.",
    ),
    [
        Query(grown(names.GPU_ECC_ERRORS, of="gpu kind", over=LATELY), "GPU {{gpu}} errors {{kind}}"),
        Query(by("gpu kind", pick(names.GPU_REMAPPED_ROWS), "max"), "GPU {{gpu}} rows {{kind}}"),
    ],
)

_CARDS = rows(
    Words(
        "Which cards",
        "What the driver says they are (`llmswap_gpu_info`), and how old the readings are"
        " (`llmswap_gpu_poll_timestamp_seconds`): looked at every 2 s. If they can no longer be read"
        " `LLMSwapGPUTelemetryStale` fires.",
        _UNSEEN,
    ),
    {
        "gpu": "GPU",
        "name": "Name",
        "mig": "MIG",
        "driver_version": "Driver",
        "cuda_version": "CUDA",
        "uuid": "UUID",
    },
    [
        Column(
            "Read ago",
            by(
                "gpu name mig driver_version cuda_version uuid",
                f"{pick(names.GPU_INFO)} * on (job, instance) group_left () (time() - {pick(names.GPU_POLL_TIME)})",
                "max",
            ),
            "s",
            decimals=0,
            limits=((60, "dark-orange"),),
        )
    ],
    links=False,
)

BOARD = Board(
    "llmswap-gpu",
    "GPU and memory",
    "What is full, what fits, what do sleepers hold, and is the hardware well?",
    [
        Row("", [Line(4, _TILES), Line(9, [(14, _MEMORY), (10, pieces.gpu_time())])]),
        Row("Who fits", [Line(8, [(24, _FITS)]), Line(8, [(12, _SLEEPERS), (12, _HOST)])]),
        Row("Use", [Line(8, [(8, _USE), (8, _POWER), (8, _ENERGY)])]),
        Row(
            "Is the hardware well",
            [
                Line(8, [(8, _HEAT), (8, _SLOWED), (8, _FAULTS)]),
                Line(8, [(8, _CLOCKS), (8, _PCIE), (8, _ECC)]),
                Line(5, [(24, _CARDS)]),
            ],
        ),
    ],
)
