"""The boards, a module each. `EVERY` is what is generated, in the order in which one reads them."""

from grafana.generate.boards import capacity, gpu, internals, model, overview, queue, requests, swaps
from grafana.generate.frame import Board

EVERY: tuple[Board, ...] = (
    overview.BOARD,
    swaps.BOARD,
    queue.BOARD,
    requests.BOARD,
    model.BOARD,
    gpu.BOARD,
    capacity.BOARD,
    internals.BOARD,
)
