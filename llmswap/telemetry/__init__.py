"""Watches: turns Steps and snapshots into metrics and log lines. Alone knows prometheus_client; changes nothing."""
