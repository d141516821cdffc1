"""`python -m tests.bench.unwatched serve ...`: llmswap with nobody watching: no metrics, traces, journal or meter.

Not a way to run it: what telemetry costs is measured against this.
"""

import sys
from typing import Any

from llmswap import app, cli
from llmswap.proxy import inference
from llmswap.proxy.metering.meter import Meter
from llmswap.runtime.observing import Unobserved


class Unwatched(app.App):
    """An App that shows its steps and requests to nobody."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop._observers.clear()
        self.loop._of_all.clear()
        self.context.observer = Unobserved()


async def _unmetered(  # noqa: PLR0917
    context: Any, call: Any, serving: Any, lease: Any, outgoing: Any, delivery: Any, _: Any
) -> Any:
    call.request[inference.METER] = Meter("")
    return await context.upstream.forward(call.request, outgoing, lease.base_url, serving.timeouts, delivery)


if __name__ == "__main__":
    app.App = Unwatched  # type: ignore[misc]
    inference._forward = _unmetered
    sys.exit(cli.main())
