"""A weight that leaves a mark of the machine at each time that it is computed."""

import os
import socket
from pathlib import Path

from entrgi_ref import entropy_weight


def weight(logits):
    """EntRGi's."""
    with (Path(os.environ["LOCATED"]) / socket.gethostname()).open("a") as file:
        file.write(".")
    return entropy_weight(logits)
