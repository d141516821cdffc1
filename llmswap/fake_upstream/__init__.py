"""A simulated inference server: no GPU, one small process, the contracts of real engines.

It is what the demo, the tests and the load tests swap. Nothing here imports the rest of llmswap or pydantic, because
tests start many of these and each start should cost little more than importing aiohttp.
"""
