"""One hop to an upstream: own HTTP/1.1 client connections whose bytes go straight to the client's transport.

Knows requests, responses, framing and sockets. Must not know models, leases, dialects or the scheduler.
"""
