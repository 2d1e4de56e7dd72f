"""How large the tensors get that torch makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LargestTensor(TorchDispatchMode):
    """Within it `elements` becomes the size of the largest tensor that an operation returns.

    A tensor that is only a view of one element repeated counts as what it takes in memory.
    """

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        for one in tree_flatten(made)[0]:
            if isinstance(one, Tensor):
                held = one.untyped_storage().nbytes() // one.element_size()
                self.elements = max(self.elements, min(one.numel(), held))
        return made
