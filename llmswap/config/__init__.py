"""Parses: a llama-swap `config.yaml` in, a Fleet and Settings out. `load` is the way in."""
