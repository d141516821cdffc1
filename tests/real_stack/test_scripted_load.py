"""The load tests' callers in their own container, watched by the stack: two in turn are an alert, slow ones are not."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import pytest
import yaml

from tests.real_stack.clone import Stack
from tests.real_stack.engine import told
from tests.real_stack.faster_rules import faster_rules
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ALERT, REACHED = "LLMSwapThrashing", "reached Alertmanager"
FACTOR = 60  # half an hour is half a minute
SETTLED_S = 35  # that, and a scrape
CONFIG = "scripted.yaml"
SIMULATED = 0.1  # real seconds for one of a model's
TOKENS_PER_S = 1 / (0.012 * SIMULATED)  # of deploy/llmswap.yaml's `chat`, so that an answer takes what its caller says
RUN_LIMIT_S, LOOK_EVERY_S = 240, 2
PASSED_OR_FAILED = {0, 1}  # by the scenario's own thresholds; anything else was no run
LEAST = 15  # requests


def known_while(stack: Stack, scenario: str, models: str, minutes: float, scale: float) -> set[str]:
    """Have Locust play a scenario in the stack, and give what becomes known of the alert until it is done.

    What else it thinks of the run, on a machine that may be busy with other tests, does not matter here.

    Args:
        stack: Has the models.
        scenario, models: As Locust is told.
        minutes: Of the scenario, of which one takes `60 * scale` seconds.
        scale: Real seconds for one of the scenario.
    """
    flags = ("--headless", "--only-summary", "--host", "http://llmswap:8080", "--scenario", scenario)
    times = ("--minutes", f"{minutes:g}", "--time-scale", f"{scale:g}", "--tokens-per-s", f"{TOKENS_PER_S:g}")
    command = ("docker", "compose", "run", "--rm", "--no-deps", "-T", "locust", *flags, *times, "--models", models)
    states, before = set[str](), answered(stack)
    with ThreadPoolExecutor(1) as pool:
        run = partial(stack.engine.attempt, *command, within_s=RUN_LIMIT_S, cwd=stack.root, **stack.environ)
        playing = pool.submit(run)
        while not playing.done():
            states |= thrashing(stack)
            wait([playing], LOOK_EVERY_S)
    code, said = playing.result()
    assert code in PASSED_OR_FAILED, said
    until_now(lambda: answered(stack) >= before + LEAST, f"{LEAST} more were answered", 30)
    return states


def thrashing(stack: Stack) -> set[str]:
    """Give what is known of the alert now: that it is pending, that it is firing, that it has reached Alertmanager."""
    alerts = stack.prometheus("alerts")["alerts"]
    states = {alert["state"] for alert in alerts if alert["labels"]["alertname"] == ALERT}
    return states | ({REACHED} if ALERT in stack.alerts() else set())


def quiet_for(stack: Stack, seconds: float) -> Callable[[], bool]:
    """Make a condition: nothing was known of the alert for so long."""
    since_s = time.monotonic()

    def is_quiet() -> bool:
        nonlocal since_s
        if thrashing(stack):
            since_s = time.monotonic()
        return time.monotonic() - since_s > seconds

    return is_quiet


def answered(stack: Stack) -> float:
    """Count the requests that were served."""
    return stack.number('sum(llmswap_requests_total{outcome="ok"})')


def scripted_callers(stack: Stack) -> list[str]:
    """Find the containers of callers that nobody here has started."""
    return stack.compose("--profile", "load", "ps", "--all", "--quiet", "locust").split()


@pytest.fixture(scope="module")
def scripted(stack: Stack) -> Iterator[Stack]:
    """Run the stack with models that say as much as they are asked for, and rules that do not take half an hour."""
    config = yaml.safe_load((stack.root / "deploy" / "llmswap.yaml").read_text())
    config["macros"]["speed"] = SIMULATED
    config["macros"]["simulated"] += " --output-tokens exact:4000"
    (stack.root / "deploy" / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    stack.compose("--profile", "load", "build", "locust")
    with faster_rules(stack, FACTOR), stack.otherwise(LLMSWAP_CONFIG=CONFIG):
        stack.up()
        until_now(lambda: stack.number('llmswap_model_state{model="chat", state="ready"}') == 1, "chat is up", 60)
        until_now(quiet_for(stack, SETTLED_S), "no earlier swap is in the alert's window", 240)
        assert scripted_callers(stack) == []
        yield stack


def test_slow_answers_of_models_that_live_together_are_no_alert(scripted: Stack):
    known = known_while(scripted, "tutor_player_coach", "player=embed,coach=chat", minutes=12, scale=0.1)
    assert not {"firing", REACHED} & known
    told(f"tutor_player_coach, from its container: {ALERT} did not fire")


def test_two_models_in_turn_are_an_alert_within_five_of_their_minutes(scripted: Stack):
    known = known_while(scripted, "pingpong", "left=chat,right=reasoner", minutes=5, scale=0.2)
    assert {"firing", REACHED} <= known
    told(f"pingpong, from its container: {ALERT} fired and reached Alertmanager before its five minutes were over")
