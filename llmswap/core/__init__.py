"""Decides: who is served, who is started, who must go. A pure function with memory, stdlib only.

Nothing here reads a clock, does I/O, logs, draws random numbers or awaits. Time comes in as `now_s` (monotonic
seconds), facts come in as events, decisions go out as commands.
"""
