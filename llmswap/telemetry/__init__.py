"""Watches: turns Steps and snapshots into metrics, traces and log lines. Alone knows its vendors; changes nothing."""
