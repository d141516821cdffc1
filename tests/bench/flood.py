"""`python -m tests.bench.flood MB_PER_S`: an upstream that prints lines at a pace for ever, if they are taken."""

import os
import sys
import time

LINE = b"slot update_slots: id  0 | task 4711 | prompt processing progress, n_past = 2048, n_tokens = 512\n"
EVERY_S = 0.005


def main(bytes_per_s: float) -> None:
    """Print."""
    text = LINE * (1 + int(bytes_per_s * EVERY_S) // len(LINE))
    due_s = time.monotonic()
    while True:
        view = memoryview(text)
        while view:
            view = view[os.write(1, view) :]
        due_s = max(due_s + len(text) / bytes_per_s, time.monotonic() - EVERY_S)  # it does not make up for long
        time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    main(1e6 * float(sys.argv[1]))
