"""Random calls of the ops: dtypes, shapes, memory, kinds of tensors and options as nobody means them.

An op may refuse what it gets, but not touch memory that is not its tensors': what it computes is the same for copies of
them that lie otherwise, and a sanitizer has nothing to say. Run as a module, it makes as many calls as it is told to.
"""

import math
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

import ce_ext  # noqa: F401
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
DTYPES = (*FLOATS, *INTEGERS, torch.bool, torch.complex64)

Shape = tuple[int, ...]
Call = tuple[Any, list[Any]]  # an op, and its arguments


# Numbers that options are not meant to be, by their types.
WILD: dict[str, tuple[Any, ...]] = {
    "int": (-(2**63), -1, 3, 5, 2**40, 2**63 - 1),
    "float": (-1.0, 0.0, 1.0, 1e308, math.inf, math.nan),
    "Optional[float]": (None, -1.0, 1e-308, math.inf, math.nan),
    "Optional[int]": (None, -(2**63), -1, 100, 2**40, torch.int64, torch.bool, torch.complex64, torch.float64),
}


class Fuzzer:
    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._device = device
        self._random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _shape(self) -> Shape:
        dims = self._random.choice((1, 2, 2, 2, 3, 4))
        sizes = (0, 1, 2, 3, 5, 8, 17, 33, 70) if dims < 3 else (0, 1, 2, 3, 5)
        return tuple(self._random.choice(sizes) for _ in range(dims))

    def _wrong(self, shape: Shape) -> Shape:
        """Mostly the shape itself."""
        if self._chance(0.9) or not shape:
            return shape
        d = self._random.randrange(len(shape))
        return self._random.choice([
            (*shape[:d], shape[d] + 1, *shape[d + 1 :]),
            (*shape[:d], max(shape[d] - 1, 0), *shape[d + 1 :]),
            shape[:d] + shape[d + 1 :],
            (*shape, 1),
        ])  # fmt: skip

    def _numbers(self, shape: Shape, dtype: torch.dtype, limit: int) -> Tensor:
        """Of integers mostly those that are classes."""
        if dtype.is_floating_point or dtype.is_complex:
            values = torch.randn(shape, generator=self._generator) * self._random.choice((0.3, 3, 100))
            return (values.sigmoid() if self._chance(0.5) else values).to(self._device, dtype)
        low, high = (-2, limit + 3) if self._chance(0.1) and dtype.is_signed else (0, max(limit, 1))
        return torch.randint(low, high, shape, generator=self._generator).to(self._device, dtype)

    def _laid_out(self, x: Tensor) -> Tensor:
        """In some other place, and by other strides."""
        ways = (
            self._permuted, self._at_the_end, self._every_other, self._expanded, self._cropped, self._window,
            self._negated, self._misaligned, self._far_apart,
        )  # fmt: skip
        return x if x.dim() == 0 or self._chance(0.2) else self._random.choice(ways)(x)

    def _permuted(self, x: Tensor) -> Tensor:
        order = self._random.sample(range(x.dim()), x.dim())
        return x.permute(order).contiguous().permute([order.index(d) for d in range(x.dim())])

    def _at_the_end(self, x: Tensor) -> Tensor:
        before = self._random.randrange(1, 9)
        return torch.cat([x.new_zeros(before), x.flatten()])[before:].view(x.shape)

    def _every_other(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), x], -1)[..., 1]

    def _expanded(self, x: Tensor) -> Tensor:
        d = self._random.randrange(x.dim())
        return x.narrow(d, 0, 1).expand(x.shape) if x.shape[d] else x

    def _cropped(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], -1).narrow(-1, 0, x.shape[-1])

    def _window(self, x: Tensor) -> Tensor:
        """Whose numbers overlap."""
        strides = [self._random.randrange(3) for _ in x.shape]
        return x.flatten().repeat(2).as_strided(x.shape, strides) if x.numel() else x

    def _negated(self, x: Tensor) -> Tensor:
        """That are the negative of what is in memory."""
        return torch._neg_view(-x) if x.is_floating_point() else x

    def _misaligned(self, x: Tensor) -> Tensor:
        """At no multiple of their size."""
        if x.numel() == 0 or not x.is_cpu:
            return x
        memory = bytearray(1 + x.nbytes)
        return torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=1).copy_(x.flatten()).view(x.shape)

    def _far_apart(self, x: Tensor) -> Tensor:
        """By strides of which no number makes use."""
        unused = [size < 2 or x.numel() == 0 for size in x.shape]
        far = self._random.choice((2**31, 2**45))  # torch itself multiplies them by sizes
        return x.as_strided(x.shape, [far if u else s for u, s in zip(unused, x.stride(), strict=True)])

    def tensor(self, shape: Shape, dtypes: Any = FLOATS, limit: int = 2) -> Tensor:
        dtype = self._random.choice(dtypes if self._chance(0.9) else DTYPES)
        return self._laid_out(self._numbers(self._wrong(shape), dtype, limit))

    def _maybe(self, shape: Shape, dtypes: Any = FLOATS) -> Tensor | None:
        return self.tensor(shape, dtypes) if self._chance(0.3) else None

    def _number(self, usual: float, *others: float) -> float:
        return usual if self._chance(0.7) else self._random.choice(others)

    def call(self) -> Call:
        op, arguments = self._random.choice(
            (self._cross_entropy, self._soft, self._elements, self._elements, self._log_softmax, self._scale_gradient)
        )()
        for change, probability in ((self._share, 0.1), (self._differentiate, 0.1), (self._make_strange, 0.03)):
            if self._chance(probability):
                change(arguments)
        if self._chance(0.05):
            self._make_wild(op, arguments)
        return op, arguments

    def _places_of_tensors(self, arguments: list[Any]) -> list[int]:
        return [place for place, argument in enumerate(arguments) if isinstance(argument, Tensor)]

    def _share(self, arguments: list[Any]) -> None:
        """Puts one tensor where another is, if it has room there."""
        places = self._places_of_tensors(arguments)
        first, second = (self._random.choice(places) for _ in range(2))
        a, b = arguments[first], arguments[second]
        extent = 1 + sum((size - 1) * stride for size, stride in zip(b.shape, b.stride(), strict=True))
        room = a.untyped_storage().nbytes() // a.itemsize - a.storage_offset() - extent
        if a.dtype == b.dtype and b.numel() and room >= 0 and not (a.is_neg() or b.is_neg()):
            offset = a.storage_offset() + self._random.choice((0, room, self._random.randint(0, room)))
            arguments[second] = a.as_strided(b.shape, b.stride(), offset)

    def _differentiate(self, arguments: list[Any]) -> None:
        """Makes some tensor require a gradient, and some one of inference mode."""
        for place in self._places_of_tensors(arguments):
            x = arguments[place]
            if self._chance(0.5) and x.is_floating_point():
                arguments[place] = x.detach().requires_grad_()
            elif self._chance(0.2):
                with torch.inference_mode():
                    arguments[place] = x.clone()

    def _make_strange(self, arguments: list[Any]) -> None:
        """Makes some tensor one that ops are not for."""
        place = self._random.choice(self._places_of_tensors(arguments))
        x = arguments[place].detach()
        kinds: list[Callable[[], Tensor]] = [
            lambda: x.to("meta"),
            lambda: x.to_sparse(),
            lambda: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
            lambda: x.float().cpu().to_mkldnn(),
            lambda: torch.nested.nested_tensor([x, x], layout=torch.jagged),
            lambda: torch._efficientzerotensor(x.shape, dtype=x.dtype, device=x.device),
            lambda: x.sum(),
        ]
        with suppress(RuntimeError):  # not all of them have all dtypes and shapes
            arguments[place] = self._random.choice(kinds)()

    def _make_wild(self, op: Any, arguments: list[Any]) -> None:
        """Changes an option."""
        types = [str(parameter.type) for parameter in op._schema.arguments]
        place = self._random.choice([place for place, name in enumerate(types) if name in WILD])
        arguments[place] = self._random.choice(WILD[types[place]])

    def _rows(self) -> tuple[Shape, int, Tensor]:
        shape = self._shape()
        batch_dims = self._random.choice((0, 0, 0, 1)) if len(shape) > 1 else 0
        return shape, batch_dims, self.tensor(shape)

    def _settings(self, input: Tensor) -> dict[str, Any]:
        opmath = torch.float64 if input.dtype == torch.float64 else torch.float32
        return {
            "reduction": self._random.choice((0, 1, 2)) if self._chance(0.98) else 3,
            "label_smoothing": self._number(0.0, 0.1, 1.0, 1.5),
            "zero_if_empty": self._chance(0.3),
            "divisor": self._random.choice((None, None, 3.5, 0.0)),
            "out_dtype": self._random.choice((None, None, opmath, torch.float16)),
        }

    def _of_logits(self) -> dict[str, Any]:
        return {
            "z_loss": self._number(0.0, 0.1),
            "logit_scale": self._number(1.0, 0.5, -2.0),
            "softcap": self._number(0.0, 5.0),
            "keep_stats": self._chance(0.7),
            "report": self._chance(0.2),
        }

    def _cross_entropy(self) -> Call:
        shape, batch_dims, input = self._rows()
        dim = min(batch_dims + 1, len(shape) - 1)
        rows = shape[:dim] + shape[dim + 1 :]
        options = CrossEntropyOptions(
            **self._settings(input), **self._of_logits(), batch_dims=batch_dims, gamma=self._number(0.0, 0.5, 2.0),
            ignore_index=self._random.choice((-100, 0, 1)), input_is_log_prob=self._chance(0.2),
        )  # fmt: skip
        target = self.tensor(rows, INTEGERS, shape[dim])
        weights = (self._maybe(shape[dim : dim + 1], (input.dtype,)), self._maybe(rows, (input.dtype,)))
        if self._chance(0.15):
            settings = (*options.of_backward(), options.report, self._number(1.0, 64.0))
            grad_input = self._laid_out(torch.empty_like(input))
            return torch.ops.ce_ext.cross_entropy_with_grad.default, [grad_input, input, target, *weights, *settings]
        return torch.ops.ce_ext.cross_entropy_forward.default, [input, target, *weights, *options]

    def _soft(self) -> Call:
        shape, batch_dims, input = self._rows()
        dim = min(batch_dims + 1, len(shape) - 1)
        options = SoftCrossEntropyOptions(
            **self._settings(input), **self._of_logits(), batch_dims=batch_dims,
            needs_input=self._chance(0.5), needs_target=self._chance(0.5),
        )  # fmt: skip
        weights = (self._maybe(shape[dim : dim + 1], (input.dtype,)), self._maybe(shape[:dim] + shape[dim + 1 :]))
        target = self.tensor(shape, (input.dtype, torch.float32))
        return torch.ops.ce_ext.soft_cross_entropy_forward.default, [input, target, *weights, *options]

    def _elements(self) -> Call:
        shape, batch_dims, input = self._rows()
        dim = min(batch_dims + 1, len(shape) - 1)
        is_class = self._chance(0.4)
        target = (
            self.tensor(shape[:dim] + shape[dim + 1 :], INTEGERS, shape[dim] + 1)
            if is_class
            else self.tensor(shape, (*FLOATS, *INTEGERS, torch.bool))
        )
        is_probability = not is_class and self._chance(0.3)
        if is_probability and input.is_floating_point():
            input = input.sigmoid()
        options = BinaryCrossEntropyOptions(
            **self._settings(input), batch_dims=batch_dims, input_is_probability=is_probability,
            gamma=0.0 if is_probability else self._number(0.0, 0.5, 2.0), alpha=self._number(-1.0, 0.25),
            ignore_index=self._random.choice((None, None, 0, -100)), needs_input=self._chance(0.8),
            needs_target=self._chance(0.3) and (is_class or target.is_floating_point()),  # of integers it means nothing
            needs_weight=self._chance(0.3), needs_pos_weight=self._chance(0.3),
        )  # fmt: skip
        shapes = (shape, shape[-1:], (1,) * len(shape))
        factors = [self._maybe(self._random.choice(shapes)) for _ in range(3)]
        return torch.ops.ce_ext.binary_cross_entropy_forward.default, [input, target, *factors, *options]

    def _log_softmax(self) -> Call:
        shape = self._shape()
        dtype = self._random.choice((None, None, torch.float32))
        dim = self._random.randrange(-len(shape), len(shape))
        return torch.ops.ce_ext.log_softmax_forward.default, [self.tensor(shape), dim, dtype]

    def _scale_gradient(self) -> Call:
        shape, batch_dims, grad_input = self._rows()
        dim = min(batch_dims + 1, len(shape) - 1)
        of_rows = shape[:dim] + shape[dim + 1 :]
        grad_output = self.tensor(self._random.choice((shape[:batch_dims], of_rows)), (grad_input.dtype,))
        scale = self._number(1.0, 64.0)
        return torch.ops.ce_ext.scale_gradient.default, [grad_input, grad_output, scale, batch_dims]

    def _misfit(self, x: Tensor | None) -> Tensor | None:
        """Something else than a backward op expects."""
        if x is None or self._chance(0.2):
            return None
        dtype = self._random.choice((x.dtype, *DTYPES))
        shape = self._random.choice((x.shape[1:], (*x.shape, 1), (0, *x.shape[1:]), (), tuple(x.shape)))
        return self._laid_out(x.new_zeros(shape, dtype=dtype))

    def backward_of(self, op: Any, arguments: list[Any], results: Any) -> Call | None:
        """Its backward op, with what it needs of the forward one, or nearly."""
        name = op.name().removesuffix("_forward")
        if name == op.name():
            return None
        backward = getattr(torch.ops.ce_ext, name.removeprefix("ce_ext::") + "_backward").default
        results = results if isinstance(results, tuple) else (results,)
        given = dict(zip((parameter.name for parameter in op._schema.arguments), arguments, strict=True))
        given |= dict(zip((result.name for result in op._schema.returns), results, strict=True))
        loss = results[0]
        given |= {"grad_output": self.tensor(tuple(loss.shape), (loss.dtype,)), "input_dtype": arguments[0].dtype}
        if self._chance(0.2):
            name = self._random.choice(("grad_output", "stats", "denominator", "output", "target", "weight"))
            given[name] = self._misfit(given.get(name))
        return backward, [given[parameter.name] for parameter in backward._schema.arguments]


def attempt(op: Any, arguments: list[Any]) -> Any:
    """Its results, or its error."""
    try:
        return op(*arguments)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return error


def each_call(seed: int, count: int, make: Callable[[Any, list[Any]], Any] = attempt, device: str = "cpu") -> int:
    """Makes all calls, each of which gives its results or its error, and says how many have been refused."""
    refused = 0
    for i in range(count):
        fuzzer = Fuzzer(1_000_003 * seed + i, device)
        call: Call | None = fuzzer.call()
        while call is not None:
            results = make(*call)
            refused += isinstance(results, Exception)
            call = None if isinstance(results, Exception) else fuzzer.backward_of(*call, results)
    return refused


if __name__ == "__main__":
    seed, count = map(int, sys.argv[1:])
    print(each_call(seed, count), "calls were refused")
