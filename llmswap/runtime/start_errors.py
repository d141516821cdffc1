"""Why a start comes to nothing. The message is one line for the client."""


class StartError(Exception):
    """The start came to nothing."""


class NoRoomError(StartError):
    """There is less memory than it is known to need: it was not begun."""


class NotReadyError(StartError):
    """It did not answer its readiness probe in time."""


class PortTakenError(StartError):
    """The port belongs to somebody else."""
