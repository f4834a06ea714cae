"""Programs of torch.export whose batch is fixed: called as often as they must be, the last batch filled up."""

from __future__ import annotations

import importlib
from typing import Any


def fixed_batch_of(program: Any) -> int | None:
    """Returns the number of items that a program takes, and no other; None if it takes any."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    shapes: list[Any] = [getattr(values.get(name), "shape", ()) for name in program.graph_signature.user_inputs]
    fixed = [int(shape[0]) for shape in shapes if len(shape) and isinstance(shape[0], int)]
    return min(fixed) if fixed else None


def module_of(program: Any) -> Any:
    """Returns the module of a program, for batches of any size."""
    fixed = fixed_batch_of(program)
    return program.module() if fixed is None else InParts(program.module(), fixed)


class InParts:
    """A module of torch that takes batches of one size, as a function of any."""

    def __init__(self, module: Any, size: int) -> None:
        """Stores the module and the size of its batches."""
        self._module, self._size = module, size

    def to(self, *where: Any, **options: Any) -> InParts:
        """Moves the module as torch does."""
        return InParts(self._module.to(*where, **options), self._size)

    def __call__(self, *arguments: Any) -> Any:
        """Returns the outputs for all items: tensors, or tuples, lists and mappings of them, batch axis first."""
        torch: Any = importlib.import_module("torch")
        tree: Any = importlib.import_module("torch.utils._pytree")
        items = len(arguments[0])
        leaves: list[list[Any]] = []
        structure = None
        for at in range(0, items, self._size):
            taken = torch.arange(at, at + self._size, device=arguments[0].device).clamp(max=items - 1)
            found, structure = tree.tree_flatten(self._module(*(argument[taken] for argument in arguments)))
            leaves.append(found)
        return tree.tree_unflatten([torch.cat(parts)[:items] for parts in zip(*leaves, strict=True)], structure)
