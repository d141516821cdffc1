"""Remembers: each Step as one line of JSON, in files that rotate. Decides nothing; nobody waits for it."""
