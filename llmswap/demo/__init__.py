"""`llmswap demo`: the real program over simulated engines, scripted clients, and a view of what happens."""
