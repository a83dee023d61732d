"""The operations as torch sees them: ``torch.ops.fogzo``, for torch.compile, export and fakes.

Importing this registers them; inside torch.compile and torch.vmap the public operations call them
(``traced``), and their kernels call the public operations in turn. Eager calls do not come here:
that saves the dispatcher's 2.5 microseconds.
"""

from __future__ import annotations

from . import batched, operations, traced

__all__ = ["batched", "operations", "traced"]
