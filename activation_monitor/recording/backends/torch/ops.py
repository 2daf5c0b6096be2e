"""Functions of `keras.ops`, as far as measuring needs them, on dense tensors only.

Those of Keras look for symbolic tensors and convert arguments at each call. That takes
several times longer than the operation itself for the small tensors of a record.
"""

# The environment of a type checker may have no PyTorch.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Any

import torch

_DTYPES = {
    "bool": torch.bool,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
}

abs = torch.abs  # noqa: A001 - the name in `keras.ops`
bitwise_and = torch.bitwise_and
broadcast_to = torch.broadcast_to
expand_dims = torch.unsqueeze
floor = torch.floor
isfinite = torch.isfinite
left_shift = torch.bitwise_left_shift
log2 = torch.log2
reshape = torch.reshape
right_shift = torch.bitwise_right_shift
square = torch.square
squeeze = torch.squeeze
zeros_like = torch.zeros_like


def _dtype(dtype):
    return _DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype


def cast(x: Any, dtype: Any) -> Any:
    """A tensor or a number in another dtype."""
    if isinstance(x, torch.Tensor):
        return x.to(_dtype(dtype))
    return torch.tensor(x, dtype=_dtype(dtype))


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the same shape."""
    return torch.ones_like(x, dtype=_dtype(dtype))


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    """Zeros."""
    return torch.zeros(shape, dtype=_dtype(dtype))


def view(x: Any, dtype: Any) -> Any:
    """The bits as elements of another dtype."""
    return x.view(_dtype(dtype))


def shape(x: Any) -> tuple[int, ...]:
    """The lengths."""
    return tuple(x.shape)


def size(x: Any) -> int:
    """The number of elements."""
    return x.numel()


def on_one_device(tensors):
    """Numbers and tensors as tensors on one device: numbers are on the CPU."""
    tensors = [torch.as_tensor(x) for x in tensors]
    device = next((x.device for x in tensors if x.device.type != "cpu"), None)
    return tensors if device is None else [x.to(device) for x in tensors]


def stack(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors of one shape along a new axis."""
    return torch.stack(on_one_device(tensors), dim=axis)


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Any:
    """Tensors one after the other."""
    return torch.cat(on_one_device(tensors), dim=axis)


def sum(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: A001
    """The sum of all elements, or along an axis."""
    return torch.sum(x) if axis is None else torch.sum(x, dim=axis, keepdim=keepdims)


def mean(x: Any) -> Any:
    """The mean of all elements."""
    return torch.mean(x)


def min(x: Any, axis: int | None = None) -> Any:  # noqa: A001
    """The least element of all, or along an axis."""
    return torch.amin(x, dim=() if axis is None else axis)


def max(x: Any, axis: int | None = None) -> Any:  # noqa: A001
    """The largest element of all, or along an axis."""
    return torch.amax(x, dim=() if axis is None else axis)


def all(x: Any, axis: int | None = None) -> Any:  # noqa: A001
    """Whether all elements are true, or those along an axis."""
    return torch.all(x) if axis is None else torch.all(x, dim=axis)


def any(x: Any) -> Any:  # noqa: A001
    """Whether any element is true."""
    return torch.any(x)


def maximum(x: Any, y: Any) -> Any:
    """The larger one of a tensor and another one, or a number."""
    return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)


def clip(x: Any, low: float, high: float) -> Any:
    """The nearest number within limits."""
    return torch.clamp(x, low, high)


def where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of one or the other: tensors or numbers."""
    return torch.where(condition, x, y)


def power(x: Any, y: Any) -> Any:
    """One to the power of the other."""
    return torch.pow(x, y)


def floor_divide(x: Any, y: Any) -> Any:
    """The whole part of a quotient, rounded down."""
    return torch.div(x, y, rounding_mode="floor")


def divide_no_nan(x: Any, y: Any) -> Any:
    """The quotient, 0 where the divisor is 0."""
    return torch.where(y == 0, torch.zeros_like(x), x / y)


def cond(condition: Any, if_true: Any, if_false: Any) -> Any:
    """What one of two functions returns. It waits for the device."""
    return if_true() if condition else if_false()


def segment_sum(x: Any, segments: Any, number: int) -> Any:
    """The sums of the elements of each segment, `(number,)`."""
    return x.new_zeros(number).index_add_(0, segments, x)
