"""How the matrices of linear layers lie in memory, for a CPU that decodes one token at a time.

With one row of input a product is as quick as its matrix is read, and the library's kernel for
[1, in] @ [in, out] reads an `in`-major matrix of many outputs at 18 GB/s where it reads an
`out`-major one at 7 (one thread; wide layers of 256 to 512 inputs that lie outside the inner
caches; the same at 2048 inputs, and for products of many rows). Where outputs are fewer it is the
other way around. Shapes, names and results stay: only strides change.
"""

from __future__ import annotations

import torch
from torch import nn

from models.screened_head import MIN_HEAD_BYTES

WIDE = 2  # outputs per input from which the other order is the quicker one


@torch.no_grad()
def lay_out_for_decoding(model: nn.Module) -> None:
    """Turn the matrices of wide linear layers on the CPU.

    A head that is read by `models.screened_head` stays: its rows are gathered one by one.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and _gains(module):
            module.weight.data = module.weight.data.t().contiguous().t()


def _gains(layer: nn.Linear) -> bool:
    weight = layer.weight
    is_measured = weight.device.type == "cpu" and weight.dtype == torch.float32
    is_wide = layer.out_features >= WIDE * layer.in_features
    return is_measured and is_wide and weight.nbytes < MIN_HEAD_BYTES
