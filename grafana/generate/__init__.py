"""Dashboards as code: boards in `boards/`, written as JSON by `python -m grafana.generate` (`make dashboards`).

Metric and label names come from `llmswap.telemetry.names`, so that no query can be written for what llmswap does not
expose.
"""
