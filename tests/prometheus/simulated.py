"""Makes prometheus/tests/thrashing.yml: what a Prometheus would have seen of named scenarios, and what is to fire.

The simulator plays each scenario under a policy, llmswap's own metrics count what happens, and every minute of virtual
time their counters are read. `python -m tests.prometheus.simulated` writes the file; a test holds it to the code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmswap.config.settings import Loaded, Settings
from llmswap.core.step import Step
from llmswap.sim.whatif import policies, scenario
from llmswap.sim.whatif.stage import play
from tests.telemetry.counted import Counted

FILE = Path(__file__).parents[2] / "prometheus" / "tests" / "thrashing.yml"
SEED = 1
MINUTES = 75
SCRAPE_S = 60.0
TARGET = 'instance="llmswap:8080",job="llmswap"'
READ = ("swaps_total", "swap_thrash_total", "gpu_phase_seconds_total")
ABOUT = """\
# Made by `python -m tests.prometheus.simulated`: an hour and a quarter of named scenarios (docs/scenarios.md), played
# by the simulator behind `llmswap simulate` (seed {seed}), counted by llmswap's own metrics, read once a minute. Series
# that stay at 0 are left out. It is made anew when the scheduler, a scenario or a metric changes.
"""
HEAD = """\
rule_files: [../rules/recording.yml, ../rules/alerts.yml]
evaluation_interval: 1m
# What alerts read is recorded first.
group_eval_order:
  [llmswap-traffic, llmswap-waiting, llmswap-swapping, llmswap-swap-times, llmswap-serving,
   llmswap-queue, llmswap-swaps, llmswap-slow-swaps, llmswap-models, llmswap-machine,
   llmswap-telemetry]
tests:
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario under a policy.

    Attributes:
        fires: The share that the alert tells, at its end; empty if it must be silent all along.
        why: In the words of a test's name.
    """

    scenario: str
    policy: str
    fires: str
    why: str


CASES = (
    Case("claude_code_slots", "fifo", "100%", "two models evict each other all the time"),
    Case("claude_code_slots", "fair", "50%", "half of the swaps bring back the model in use"),
    Case("tutor_player_coach", "fifo", "", "slow answers of models that live together are no thrash"),
    Case("tutor_player_coach", "fair", "", "slow answers of models that live together are no thrash"),
    Case("opencode_fanout", "fair", "", "many swaps that cost much, but few of them straight back"),
    Case("shared_box_rogue", "fair", "", "a rogue call in ten minutes evicts the model in use, and costs little"),
)


@cache
def sampled(name: str, policy: str) -> dict[str, list[float]]:
    """Give each series' values, from time 0 on, minute by minute."""
    workload = scenario.load(name).workload
    fleet = policies.parse(policy, workload.fleet).fleet
    counted = Counted(config=Loaded(fleet, Settings({})))
    rows: list[dict[str, float]] = []

    def scrape(step: Step) -> None:
        while step.at_s >= len(rows) * SCRAPE_S:
            counted.now_s = len(rows) * SCRAPE_S
            rows.append(counted.samples())
        counted.steps(step)

    play(workload, fleet, SEED, MINUTES * 60.0 + SCRAPE_S, observers=[scrape])
    wanted = [series for series in rows[-1] if series.partition("{")[0] in READ and rows[-1][series]]
    return {series: [row[series] for row in rows[: MINUTES + 1]] for series in wanted}


def written() -> str:
    """Give the file."""
    return ABOUT.format(seed=SEED) + "".join(
        [
            HEAD,
            *("".join(_case(case)) for case in CASES),
        ]
    )


def _case(case: Case) -> Iterator[str]:
    verb = "fires on" if case.fires else "stays silent on"
    yield f"  - name: LLMSwapThrashing {verb} {case.scenario} under {case.policy}, {case.why}\n"
    yield "    interval: 1m\n    external_labels: {grafana: http://grafana.test}\n    input_series:\n"
    for series, values in sampled(case.scenario, case.policy).items():
        name, _, labels = series.rstrip("}").partition("{")
        yield f"      - series: 'llmswap_{name}{{{TARGET},{labels}}}'\n"
        yield f"        values: {' '.join(f'{value:.10g}' for value in map(_rounded, values))}\n"
    yield "    alert_rule_test:\n"
    if not case.fires:
        times = range(5, MINUTES + 1, 5)
        yield from (f"      - {{alertname: LLMSwapThrashing, eval_time: {at}m, exp_alerts: []}}\n" for at in times)
        return
    told = (
        f"{case.fires} of the swaps of the last 30 minutes brought back a model that had been evicted a moment before"
    )
    yield f"""\
      - alertname: LLMSwapThrashing
        eval_time: {MINUTES}m
        exp_alerts:
          - exp_labels: {{severity: warning, job: llmswap, instance: "llmswap:8080"}}
            exp_annotations:
              summary: Models keep evicting each other.
              description: "{told}, and more than 10 % of a GPU's time went into swapping."
              runbook_url: https://github.com/llmswap/llmswap/blob/main/prometheus/RUNBOOK.md#llmswapthrashing
              dashboard_url: http://grafana.test/d/llmswap-swaps
"""


def _rounded(value: float) -> float:
    return round(value, 1)


if __name__ == "__main__":
    FILE.write_text(written())
