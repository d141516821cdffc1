"""Load tests: agents' traffic against a swap proxy, and a score card. Imports nothing from llmswap."""
