"""Speaks HTTP: takes clients' requests, waits at the gate, moves bytes, and shows the operator what is going on."""
