"""Adam over a table in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LARGE = 2**20
"""A smaller table is in the cache, where nothing is gained."""


def adam(parameters: Iterable[Tensor], lr: float, whole: Tensor | None = None) -> torch.optim.Adam:
    """`torch.optim.Adam`, which goes over a large table of float32 once instead of six times.

    The one pass rounds otherwise in the last digit. So of parameters that are parts of a table,
    the `whole` decides.
    """
    parameters = list(parameters)
    tables = parameters if whole is None else [whole]
    large = all(p.dtype == torch.float32 and p.numel() > LARGE for p in tables)
    return torch.optim.Adam(parameters, lr=lr, fused=large)
