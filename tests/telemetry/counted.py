"""Metrics fed by hand, in a time of their own, and their numbers."""

from collections.abc import Iterable

from llmswap.config.settings import Loaded, Settings
from llmswap.core.fleet import Fleet, Model, ModelId
from llmswap.core.snapshot import Snapshot, SwapView, UpstreamView
from llmswap.core.step import Step
from llmswap.runtime.observing import RequestOutcome, RequestRecord, Usage
from llmswap.telemetry import exposition
from llmswap.telemetry.metrics import Metrics, Sources

CHAT = "/v1/chat/completions"


def fleet_of(*models: ModelId | Model) -> Fleet:
    """Make a fleet of models that cannot live together."""
    made = [model if isinstance(model, Model) else Model(model) for model in models]
    return Fleet(models={model.id: model for model in made}, names={model.id: model.id for model in made})


def loaded(*models: ModelId | Model) -> Loaded:
    """Make a config of nothing but models."""
    return Loaded(fleet_of(*models), Settings({}))


class Counted:
    """Metrics whose clock stands at the last step.

    Attributes:
        views: What the scheduler's picture shows; likewise `swaps`.
    """

    def __init__(
        self,
        *models: ModelId | Model,
        config: Loaded | None = None,
        sources: Sources | None = None,
        start_s: float = 0.0,
    ) -> None:
        self.now_s = start_s
        self.views: dict[ModelId, UpstreamView] = {}
        self.swaps: tuple[SwapView, ...] = ()
        config = config or loaded(*models)
        self.metrics = Metrics(config, self._snapshot, sources, clock=lambda: self.now_s)

    def _snapshot(self) -> Snapshot:
        return Snapshot(upstreams=self.views, swaps=self.swaps, draining=False)

    def steps(self, *steps: Step) -> None:
        """Show it steps."""
        for step in steps:
            self.now_s = step.at_s
            self.metrics(step)

    def samples(self) -> dict[str, float]:
        """Give every sample: `name{labels}` without the prefix of all names, and its value."""
        text = exposition.write(self.metrics.freeze(), openmetrics=False)
        lines = (line.removeprefix("llmswap_").rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in lines}

    def get(self, series: str) -> float | None:
        """Give one sample; None if it is not there."""
        return self.samples().get(series)

    def total(self, name: str, *labels: str) -> float:
        """Sum the samples of a family that have all these labels."""
        return sum_of(self.samples().items(), name, *labels)


def sum_of(samples: Iterable[tuple[str, float]], name: str, *labels: str) -> float:
    """Sum the samples of a name that have all these labels."""
    mine = ((series, value) for series, value in samples if series.partition("{")[0] == name)
    return sum(value for series, value in mine if all(label in series for label in labels))


def record(model: ModelId | None, at_s: float = 10.0, **values: object) -> RequestRecord:
    """Make the record of a request that was answered well: a second long, sent and granted at once."""
    made = RequestRecord("r", "POST", CHAT, CHAT, at_s, model=model, asked=model or "x", serving=model)
    made.granted_s = made.sent_s = at_s
    made.hop_ended_s = made.ended_s = at_s + 1.0
    made.status, made.outcome = 200, RequestOutcome.OK
    made.usage = Usage(input_tokens=100, output_tokens=20)
    for name, value in values.items():
        setattr(made, name, value)
    return made
