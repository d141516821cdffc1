"""The proxy under test: what it is, what it lets be seen of itself, and how it is made ready for a run.

Nothing is assumed of a target but the OpenAI API. What it does not show is not known, which is not 0.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loadtests.exposition import Exposition
from loadtests.scenario import Scenario

LIMIT_S = 10.0
WARM_LIMIT_S = 600.0
FRESH_S = 1.1  # llmswap gives an exposition out again for a second
QUIET_LIMIT_S = 20.0


class Kind(StrEnum):
    """What a target turned out to be."""

    LLMSWAP = "llmswap"
    LLAMA_SWAP = "llama-swap"
    OPENAI = "OpenAI-compatible"


class TargetError(RuntimeError):
    """The target cannot be used for this scenario; the message says why, and what to do."""


@dataclass
class Target:
    """A proxy, by its base URL.

    Attributes:
        models: The scenario's names of models -> the target's, where they differ.
    """

    url: str
    api_key: str = ""
    models: dict[str, str] = field(default_factory=dict)

    def send(
        self, path: str, body: dict[str, Any] | None = None, *, limit_s: float = LIMIT_S, post: bool = False
    ) -> tuple[int, str]:
        """Send a request past the callers; gives status and text.

        Raises:
            OSError: It cannot be reached.
        """
        url = path if path.startswith("http") else self.url.rstrip("/") + path
        headers = {"Content-Type": "application/json"}
        if self.api_key and url.startswith(self.url):
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  the user says where
            url, data, headers, method="POST" if post or body is not None else "GET"
        )
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as response:  # noqa: S310
                return response.status, response.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")

    def kind(self) -> Kind:
        """Find out what it is.

        Raises:
            TargetError: It cannot be reached.
        """
        try:
            if "llmswap_build_info" in self.send("/metrics")[1]:
                return Kind.LLMSWAP
            return Kind.LLAMA_SWAP if self.running() is not None else Kind.OPENAI
        except OSError as error:
            raise TargetError(f"{self.url} cannot be reached: {error}") from None

    def running(self) -> dict[str, dict[str, str]] | None:
        """Give what `/running` says, by model; None where there is no such thing.

        Raises:
            OSError: It cannot be reached.
        """
        status, text = self.send("/running")
        try:
            listed = json.loads(text)["running"] if status == 200 else None
            return None if listed is None else {str(each["model"]): each for each in listed}
        except (ValueError, KeyError, TypeError):
            return None

    def scrape(self) -> Exposition:
        """Read its metrics.

        Raises:
            OSError: It cannot be reached.
        """
        return Exposition.parse(self.send("/metrics")[1])

    def listed(self) -> set[str] | None:
        """Name its models; None if it does not say."""
        try:
            return {str(each["id"]) for each in json.loads(self.send("/v1/models")[1])["data"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prepare(self, scenario: Scenario) -> None:
        """Make it what the scenario begins with.

        Raises:
            TargetError: It lacks a model, or one does not come up.
        """
        listed = self.listed()
        lacking = [name for name in scenario.models if listed is not None and self.named(name) not in listed]
        if lacking:
            raise TargetError(
                f"{self.url} has no model {', '.join(lacking)}; it has {', '.join(sorted(listed or ()))}. Say which "
                f"of them to use: --models {lacking[0]}=NAME"
            )
        began = [(name, model) for name, model in scenario.models.items() if model.begins != "stopped"]
        for name, _ in began:
            self._wake(name)
        for name, model in began:
            if model.begins == "asleep":
                status, text = self.send(f"/api/models/sleep/{self.named(name)}", limit_s=WARM_LIMIT_S, post=True)
                if status != 200:
                    raise TargetError(f"{name} cannot be put to sleep: {status} {text[:200]}")
        asks_strangers = any(step.made_up for caller in scenario.callers for step in (*caller.first, *caller.loop))
        if asks_strangers:  # once before the first scrape: the series that stands for all of them is there
            self.send("/v1/chat/completions", {"model": "nobody-at-all", "messages": [], "stream": True})
        if began or asks_strangers:
            time.sleep(FRESH_S)

    def named(self, model: str) -> str:
        """Give the target's name of a model."""
        return self.models.get(model, model)

    def _wake(self, model: str) -> None:
        body = {
            "model": self.named(model),
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 1,
        }
        status, text = self.send("/v1/chat/completions", body, limit_s=WARM_LIMIT_S)
        if status != 200:
            raise TargetError(f"{model} does not come up: {status} {text[:200]}")

    def quiet(self, sleep: Callable[[float], None]) -> Exposition:
        """Wait until nothing is in flight, and scrape; after a while whatever is in flight stays."""
        end_s = time.monotonic() + QUIET_LIMIT_S
        while True:
            sleep(FRESH_S)
            seen = self.scrape()
            waiting = seen.total("llmswap_requests_in_flight") + seen.total("llmswap_queue_depth")
            if not waiting or time.monotonic() > end_s:
                return seen


@dataclass
class Lanes:
    """What each model was doing, as `/running` said time and again.

    Attributes:
        spans: Model -> (since when, in real seconds from the beginning; its state, empty for none).
        every_s: How often it was asked.
        blind: Why nothing is known; empty if something is.
    """

    every_s: float
    spans: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    blind: str = ""
    looks: int = 0

    def see(self, at_s: float, running: dict[str, dict[str, str]] | None) -> None:
        """Take one answer."""
        if running is None:
            self.blind = self.blind or "the target has no /running"
            return
        self.looks += 1
        for model in {*running, *self.spans}:
            state = running.get(model, {}).get("state", "")
            lane = self.spans.setdefault(model, [(0.0, "")])
            if lane[-1][1] != state:
                lane.append((at_s, state))

    def count(self, state: str) -> int:
        """Count how often models came into a state."""
        return sum(name == state for lane in self.spans.values() for _, name in lane)
