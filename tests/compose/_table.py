"""Verdicts by feature and kind of probes, as text and as a document."""

from __future__ import annotations

from dataclasses import dataclass, field

INTRODUCTION = """\
# What composes with what

<!-- Written by pytest -q tests/compose --write-composition; a test compares it with verdicts. -->

Each cell is a test of tests/compose: it trains a small model with the feature of the row and the
probes of the column, and the losses of all probes must be those of a slow loop written by hand, no
parameter may change, and gradients must be finite and, where nothing perturbs them, those of plain
back-propagation.

- **yes**: as said.
- **falls back**: right, but probes run one after the other; `est.last.why_sequential` says why, and
  a warning says it once.
- **refused**: an error that says what to do instead, before anything is changed.

Columns: *sequential*, `probes_mode="batched"`, `probe_dtype="int8"`, `probe_fraction=0.5`,
`difference="forward"`, `everything=True`, and `NSPSA`.

"""
NOTES = """
## Batched probes

`FOGZO(model, probes_mode="batched")` runs the 2n probes of a step as one forward: `torch.vmap` maps
the closure over the packed codes of the quantized weights. The first quantized layer multiplies
rows that are the same for all probes, later ones have rows for each, and each product is one call
of `fk.probe_matmul`. `randomness="same"` gives every probe the masks that the step's own forward
drew; where the state of the random numbers behind it says otherwise, the probes run one by one.
BatchNorm in train mode normalises each probe by that probe's batch and updates nothing.

Under autocast the functions that the closure calls are given its rules one by one (float32 for a
`cross_entropy`, halves for a `linear`): torch.vmap would take them apart before autocast knows
them. Functions that autocast meets inside an operation of C++ alone keep the rules of their parts,
and compiled code under autocast runs uncompiled there, or one probe after the other.

The losses are those of sequential probes but for rounding. What it costs is memory, the
activations of 2n forwards without a graph at once; what it saves is the launches and the Python of
2n - 1 forwards. On one thread of a Zen 3 CPU, where launches are cheap, it is no gain for the six
blocks of width 256 that the step benchmark uses (FOGZO's step over the straight-through step,
medians of one run beside other work on the machine; SDPA has no rule for CPU tensors in
torch.vmap and runs once for each probe):

| tokens | probes n | sequential | batched | sequential, int8 | batched, int8 |
| --- | --- | --- | --- | --- | --- |
| 2048 | 1 | 1.58 | 1.68 | 1.30 | 1.40 |
| 64 | 1 | 1.95 | 2.21 | 1.81 | 2.13 |
| 64 | 4 | 4.65 | 4.37 | 4.43 | 3.80 |

So `sequential` is the default; many probes of small batches are where batching pays. It is not yet
measured on a GPU, and there the masks of fused dropout kernels may differ between the two modes.

Where the closure turns out not to be mappable it has run once more than otherwise. It is tried
again at every hundredth call of `backward`, since what stood in the way may have passed; another
closure, train in place of eval mode and another autocast around the call are tried at once. The
warning comes once, and reasons are kept in `est.state_dict()`, so that a resumed run tries when the
first would have. What a mapped closure stores (`self.out = y`) is a tensor of torch.vmap's that
nothing can read after the call.

## Captured steps

`capturable=True` lets a CUDA graph capture a step: [cuda-graphs.md](cuda-graphs.md). No GPU has run
one yet. In the table a step's operations are recorded on the CPU and run again without Python, as a
graph does. A forward that draws random numbers is refused when it is captured.

## Several processes

Give the estimator the model that DistributedDataParallel wraps: it averages the losses of all
probes over the wrapper's processes, and since the gradients are averaged and the noise is the same
everywhere, so is G. `est.last.losses` are the averages, `est.last.loss` is the process's own.
`process_group=` names the processes where the wrapper is not part of the model. Weights that are
sharded are refused: FullyShardedDataParallel by every estimator, `fully_shard` and nn.DataParallel
by those that probe. Inside `no_sync()` a call is refused: G would be made of gradients that differ.
While probes run no buffers are broadcast. NSPSA leaves the quantized weights out of
back-propagation: where it back-propagates to others, the wrapper needs
`find_unused_parameters=True`. It has that in the table, and batched probes fall back because of it:
without it they are batched.
With `gradient_as_bucket_view=True` a call copies the gradients that it finds, because backward()
writes into their memory.

## What a closure may do

Every forward of a step calls the closure, so that whatever it changes changes 1 + 2n times. Of that
a probe undoes two things: what it writes into the buffers of the estimator's own model, and what it
draws from torch's global generators. Other state goes on in every forward: the BatchNorm of a
teacher that is not part of the model, an average of weights or a queue that the closure updates,
the carry of a recurrent net that it keeps. Update these after `backward`, or keep them as buffers
of the model. Probes run under `torch.no_grad()`: a closure that calls `torch.autograd.grad` does so
inside `torch.enable_grad()`.

A hook of `weight.register_hook` changes the guide and not G, whose random part is of all
weights: what is to hold of G (a mask, a clip) is applied to `.grad` after `backward`. A step in
which no perturbed weight has a gradient, because all are frozen or a hook set `.grad` to None, is
plain back-propagation; a warning says so once.

## Models that change

An estimator is of the parameters and quantized layers that its model held when it was made. Every
call compares them (2 microseconds for the MNIST recipe's model) and refuses others by name:
parameters that `load_state_dict(assign=True)` or `layer.weight = nn.Parameter(...)` replaced, a
layer that was added. Make the estimator anew then, and the optimizer too; `load_state_dict` of the
old one's state goes on with its counts where the weights have the same names. Modules without
parameters may come and go.

## Memory

Quantized weights are perturbed as packed codes, two sides of one probe at a time (batched: of all);
a layer that multiplies by values (autocast, `difference="forward"`) makes them and lets them go. Of
more than 2^20 weights G is written over the gradient, which is why `est.last.predicted` is then
made in the call. A step of the six blocks with 48 tokens, where weights are most of it, has the
peak of the straight-through step, by the bytes of tests/test_estimator_memory.py; under autocast it
has that, the packed codes and half precision's values of one layer. A convolution adds the values
of one layer, of one side, in either mode. With a GradScaler the unscaled gradient is a copy, and
`quest` makes rotated copies of weights and gradients.
"""


@dataclass
class Table:
    """Verdicts in the order they come; ``columns``: in the order of the first row."""

    verdicts: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, row: str, column: str, verdict: str) -> None:
        self.verdicts.setdefault(row, {})[column] = verdict

    def complete(self, rows: list[str], columns: list[str]) -> bool:
        return all(column in self.verdicts.get(row, {}) for row in rows for column in columns)

    def _cells(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Columns, rows of short verdicts, and the reasons that their numbers mean."""
        columns = list(next(iter(self.verdicts.values())))
        reasons: list[str] = []
        rows = []
        for row, verdicts in self.verdicts.items():
            cells = [row]
            for column in columns:
                short, _, reason = verdicts.get(column, "").partition(": ")
                if reason and reason not in reasons:
                    reasons.append(reason)
                cells.append(f"{short} ({reasons.index(reason) + 1})" if reason else short)
            rows.append(cells)
        return columns, rows, reasons

    def plain(self) -> str:
        columns, rows, reasons = self._cells()
        lines = [["", *columns], *rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*text, *(f"({i}) {reason}" for i, reason in enumerate(reasons, 1))])

    def document(self) -> str:
        columns, rows, reasons = self._cells()
        lines = [f"| | {' | '.join(columns)} |", f"| {'--- | ' * (len(columns) + 1)}".rstrip()]
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
        lines += ["", *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))]
        return INTRODUCTION + "\n".join(lines) + "\n" + NOTES
