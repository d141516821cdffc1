"""Asks "what if": the scheduler in a world of virtual time, simulated processes and clients, and planted faults.

Nothing here reads a clock, waits, or does I/O; a seed decides everything, so a failure can be replayed.
"""
