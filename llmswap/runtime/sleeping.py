"""How an upstream falls asleep and wakes: steps in order, then proof. It decides nothing and posts nothing.

What measures its memory is a `freeing.MemoryWatch`.
"""
