"""What answers take in tokens and time: read from their bytes as they pass, and asked for where nobody would say.

Knows what engines say of themselves. Must not know leases, queues or the scheduler, and changes no byte but its own.
"""
