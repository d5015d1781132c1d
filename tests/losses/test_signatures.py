"""Functions and modules take what those take that they replace: every parameter, by its name, in its place, with its
default. What is no argument is refused in the words of what was called."""

import inspect
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typing_extensions import is_typeddict

import ce_ext
from tests.support.losses import LOSSES

pytestmark = pytest.mark.torch_modes

F, ours = torch.nn.functional, ce_ext.functional

INPUT = torch.tensor([[0.2, -1.0, 0.5], [1.5, 0.1, -0.3]])
CLASSES, TAGS = torch.tensor([2, 0]), torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def torchvision_sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """`torchvision.ops.sigmoid_focal_loss`, which is not installed."""
    p = inputs.sigmoid()
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none") * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


def fvcore_sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """`fvcore.nn.sigmoid_focal_loss`, whose default of alpha is another one."""
    return torchvision_sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)


FUNCTIONS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (ours.cross_entropy, F.cross_entropy),
    (ours.nll_loss, F.nll_loss),
    (ours.log_softmax, F.log_softmax),
    (ours.binary_cross_entropy, F.binary_cross_entropy),
    (ours.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    (ours.sigmoid_focal_loss, torchvision_sigmoid_focal_loss),
    (ours.sigmoid_focal_loss, fvcore_sigmoid_focal_loss),
]
MODULES = [
    (getattr(ce_ext.nn, name), getattr(torch.nn, name))
    for name in ("CrossEntropyLoss", "NLLLoss", "LogSoftmax", "BCELoss", "BCEWithLogitsLoss")
]
ALL_FUNCTIONS = pytest.mark.parametrize(("function", "replaced"), FUNCTIONS, ids=lambda f: f.__name__)
ALL_MODULES = pytest.mark.parametrize(("module", "replaced"), MODULES, ids=lambda f: f.__name__)

# Away from their defaults. Of a module, label_smoothing is 0.
VALUES: dict[str, Any] = {
    "weight": torch.tensor([0.5, 1.0, 2.0]),
    "pos_weight": torch.tensor([3.0, 1.0, 0.5]),
    "size_average": None,
    "reduce": None,
    "ignore_index": 2,
    "reduction": "sum",
    "label_smoothing": 0.1,
    "alpha": 0.7,
    "gamma": 1.5,
    "dim": 0,
    "_stacklevel": 5,
    "dtype": torch.float64,
}


def _tensors(name: str) -> tuple[Tensor, ...]:
    input = INPUT.sigmoid() if name in ("binary_cross_entropy", "BCELoss") else INPUT
    if "softmax" in name.lower():
        return (input,)
    return input, CLASSES if name in ("cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss") else TAGS


@ALL_FUNCTIONS
def test_parameters_of_functions(function: Callable[..., Any], replaced: Callable[..., Any]) -> None:
    theirs, mine = inspect.signature(replaced).parameters, inspect.signature(function).parameters
    assert list(mine)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert mine[name].kind == parameter.kind
        if (replaced, name) != (fvcore_sigmoid_focal_loss, "alpha"):
            assert mine[name].default == parameter.default


@ALL_MODULES
def test_parameters_of_modules(module: type[torch.nn.Module], replaced: type[torch.nn.Module]) -> None:
    theirs, mine = inspect.signature(replaced).parameters, inspect.signature(module).parameters
    assert [(name, p.kind, p.default) for name, p in mine.items()][: len(theirs)] == [
        (name, p.kind, p.default) for name, p in theirs.items()
    ]
    assert issubclass(module, replaced)
    forward = list(inspect.signature(replaced.forward).parameters)
    assert list(inspect.signature(module.forward).parameters)[: len(forward)] == forward


@ALL_FUNCTIONS
def test_calls_of_functions(function: Callable[..., Any], replaced: Callable[..., Any]) -> None:
    """By position, as far as each parameter, and all of them by name."""
    tensors = _tensors(function.__name__)
    names = list(inspect.signature(replaced).parameters)
    values = [VALUES[name] for name in names[len(tensors) :]]
    for count in range(1, len(values) + 1):
        torch.testing.assert_close(function(*tensors, *values[:count]), replaced(*tensors, *values[:count]))
    named = dict(zip(names, (*tensors, *values), strict=True))
    torch.testing.assert_close(function(**named), replaced(**named))


@ALL_MODULES
def test_calls_of_modules(module: type[torch.nn.Module], replaced: type[torch.nn.Module]) -> None:
    tensors = _tensors(module.__name__)
    names = list(inspect.signature(replaced).parameters)
    values = [VALUES[name] for name in names]
    for count in range(len(values) + 1):
        if not (module is ce_ext.nn.LogSoftmax and count == 0):
            ours, theirs = module(*values[:count]), replaced(*values[:count])
            torch.testing.assert_close(ours(*tensors), theirs(*tensors))
            assert ours.state_dict().keys() == theirs.state_dict().keys()
    named = dict(zip(names, values, strict=True))
    torch.testing.assert_close(module(**named)(*tensors), replaced(**named)(*tensors))


LEGACY = [(f, name) for f, _ in (*FUNCTIONS, *MODULES) for name in ("size_average", "reduce")]


@pytest.mark.parametrize(
    ("callee", "name"),
    [(f, name) for f, name in LEGACY if name in inspect.signature(f).parameters],
    ids=lambda x: getattr(x, "__name__", x),
)
@pytest.mark.parametrize("value", [True, False])
def test_size_average_and_reduce_are_refused(callee: Callable[..., Any], name: str, value: bool) -> None:
    """In words that say what torch returns for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equivalent = torch.nn.L1Loss(**{name: value}).reduction
    tensors = () if inspect.isclass(callee) else _tensors(callee.__name__)
    with pytest.raises(TypeError, match=f"deprecated in torch and not supported here: use reduction='{equivalent}'"):
        callee(*tensors, **{name: value})


def test_the_place_of_size_average_is_no_other_one() -> None:
    """Neither as it was in torch, nor as whoever forgets it thinks."""
    for call in (lambda *x: ours.nll_loss(INPUT, CLASSES, *x), lambda *x: ce_ext.nn.CrossEntropyLoss(*x)):
        with pytest.raises(TypeError, match=r"use reduction='sum', but got size_average=False"):
            call(None, False)
        with pytest.raises(TypeError, match=r"got size_average=2 .* in torch: give what comes behind them by name"):
            call(None, 2)


@pytest.mark.parametrize("bad", [True, np.bool_(False), torch.tensor(True)], ids=["bool", "numpy", "tensor"])
def test_a_bool_is_no_integer(bad: Any) -> None:
    classes = "ignore_index must be an int, but got .*: size_average and reduce are deprecated .* use reduction="
    for loss in LOSSES:
        input, target = loss.make_inputs((4, 5), torch.float32)
        with pytest.raises(TypeError, match=classes):
            loss.function(input, target, ignore_index=bad)
        with pytest.raises(TypeError, match=classes):
            loss.module(ignore_index=bad)
        if not loss.is_binary:
            with pytest.raises(TypeError, match=classes):
                loss.function(input, target, ignore_index=(1, bad))
            with pytest.raises(TypeError, match="dim must be an int, but got"):
                loss.function(input, target, dim=bad)
            with pytest.raises(TypeError, match="dim must be an int, but got"):
                loss.module(dim=bad)
    with pytest.raises(TypeError, match="dim must be an int, but got"):
        ours.log_softmax(INPUT, bad)
    with pytest.raises(TypeError, match="dim must be an int, but got"):
        ce_ext.nn.LogSoftmax(bad)
    with pytest.raises(TypeError, match="_stacklevel must be an int, but got"):
        ours.log_softmax(INPUT, 1, bad)


@pytest.mark.parametrize("make", [np.int32, np.uint8, np.array, torch.tensor], ids=lambda f: f.__name__)
def test_integers_of_other_libraries(make: Callable[[int], Any]) -> None:
    """Those that torch takes, and zero-dimensional arrays wherever it takes them somewhere."""
    for loss in LOSSES:
        input, target = loss.make_inputs((4, 5), torch.float32)
        expected = loss.function(input, target, ignore_index=1)
        torch.testing.assert_close(loss.function(input, target, ignore_index=make(1)), expected)
        if loss.is_binary:
            continue
        torch.testing.assert_close(loss.function(input, target, ignore_index=[make(1)]), expected)
        torch.testing.assert_close(loss.function(input, target, dim=make(1)), loss.function(input, target))
    torch.testing.assert_close(ours.log_softmax(INPUT, make(0)), INPUT.log_softmax(0))


@pytest.mark.parametrize("make", [np.float32, np.array, torch.tensor, np.int64], ids=lambda f: f.__name__)
def test_numbers_of_other_libraries(make: Callable[[float], Any]) -> None:
    number = 1.0 if make is np.int64 else 0.25
    for loss in LOSSES:
        input, target = loss.make_inputs((4, 5), torch.float32)
        names = [
            name
            for name in inspect.signature(loss.function).parameters
            if name == "alpha" or "gamma" in name or (name == "margin" and number < 1)
        ]
        for name in (*names, "denominator", *(["z_loss", "label_smoothing"] if "z_loss" in _options(loss) else [])):
            reduction = {"reduction": "mean"}
            expected = loss.function(input, target, **{name: number}, **reduction)
            torch.testing.assert_close(loss.function(input, target, **{name: make(number)}, **reduction), expected)


def _options(loss: Any) -> frozenset[str]:
    return frozenset(getattr(loss.module, "_options", {}))


def test_numbers_have_no_gradients() -> None:
    """Which would be lost without a word."""
    needs_grad = torch.tensor(0.5, requires_grad=True)
    for call in (
        lambda: ours.cross_entropy(INPUT, CLASSES, label_smoothing=needs_grad),
        lambda: ours.softmax_focal_loss(INPUT, CLASSES, gamma=needs_grad),
        lambda: ours.sigmoid_focal_loss(INPUT, TAGS, gamma=needs_grad),
    ):
        with pytest.raises(TypeError, match="must be a float, but got a tensor that requires grad"):
            call()
        with torch.no_grad():
            assert call().isfinite().all()


@pytest.mark.parametrize("bad", ["1", [1.0], None], ids=["str", "list", "None"])
def test_what_is_no_number(bad: Any) -> None:
    for name in ("label_smoothing", "gamma", "z_loss", "logit_scale", "softcap", "denominator"):
        if bad is not None or name != "denominator":
            for more in ({}, {"return_stats": True}):
                with pytest.raises(TypeError, match=f"{name} must be a float, but got .* of type {type(bad).__name__}"):
                    ours.softmax_focal_loss(INPUT, CLASSES, **{name: bad}, **more)
    for name in ("alpha", "gamma", "label_smoothing"):
        with pytest.raises(TypeError, match=f"{name} must be a float, but got .* of type {type(bad).__name__}"):
            ours.sigmoid_focal_loss(INPUT, TAGS, **{name: bad})
    for name in ("gamma_neg", "gamma_pos", "margin", "label_smoothing"):
        with pytest.raises(TypeError, match=f"{name} must be a float, but got .* of type {type(bad).__name__}"):
            ours.asymmetric_loss(INPUT, TAGS, **{name: bad})


NUMBERS = ("label_smoothing", "gamma", "z_loss", "logit_scale", "softcap")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_several_that_are_no_numbers(count: int) -> None:
    """Which are all of one type."""
    message = "label_smoothing must be a float, but got '1' of type str"
    with pytest.raises(TypeError, match=message):
        ours.softmax_focal_loss(INPUT, CLASSES, **dict.fromkeys(NUMBERS[:count], "1"))
    with pytest.raises(TypeError, match=message):
        ours.sigmoid_focal_loss(INPUT, TAGS, **dict.fromkeys(NUMBERS[:2][:count], "1"))


@pytest.mark.parametrize("bad", [[1.0, 1.0, 1.0], 0.25, np.ones(3, np.float32)], ids=["list", "float", "ndarray"])
def test_what_is_no_tensor(bad: Any) -> None:
    calls = {
        "weight": [
            lambda x, f=f: f(*_tensors(f.__name__), weight=x) for f, _ in FUNCTIONS if f is not ours.log_softmax
        ],
        "pos_weight": [
            lambda x, f=f: f(INPUT, TAGS, pos_weight=x)
            for f in (ours.binary_cross_entropy_with_logits, ours.sigmoid_focal_loss, ours.asymmetric_loss)
        ],
        "sample_weight": [
            lambda x, f=f: f(INPUT, CLASSES, sample_weight=x)
            for f in (ours.cross_entropy, ours.nll_loss, ours.softmax_focal_loss)
        ],
    }
    calls["weight"].append(lambda x: ours.softmax_focal_loss(INPUT, CLASSES, x))
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(TypeError, match=f"{name} must be a Tensor, but got {type(bad).__name__}"):
                function(bad)


ALL_LOSSES = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


@ALL_LOSSES
def test_unknown_names(loss: Any) -> None:
    """In the words of what was called, and with the name that may have been meant."""
    input, target = loss.make_inputs((4, 5), torch.float32)
    for call, name in (
        (lambda **more: loss.function(input, target, **more), loss.name),
        (loss.module, loss.module.__name__),
        (lambda **more: loss.module()(input, target, **more), loss.name),
    ):
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an .* argument 'on_emty'. Did you mean 'on_empty'\?$"):
            call(on_emty="zero")
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an .* argument 'redution'. Did you mean 'reduction'\?$"):
            call(redution="sum")
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'input_is_log_prob'$"):
            call(input_is_log_prob=True)


def test_one_name_is_meant() -> None:
    with pytest.raises(TypeError, match=r"argument 'gamma'. Did you mean 'gamma_(pos|neg)'\?$"):
        ours.asymmetric_loss(INPUT, TAGS, gamma=2.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_whatever_makes_a_float_of_itself_is_a_number(count: int) -> None:
    """Some of them, or all."""
    losses = (
        ours.softmax_focal_loss(INPUT, CLASSES, **({"gamma": 0.5} | dict.fromkeys(NUMBERS[:count], number)))
        for number in (Fraction(1, 2), 0.5)
    )
    assert torch.equal(*losses)


def test_what_was_no_size_average_is_not_taken_for_one() -> None:
    with pytest.raises(TypeError, match=r"ignore_index must be an int, but got 'x' of type str$"):
        ours.cross_entropy(INPUT, CLASSES, ignore_index="x")


@pytest.mark.parametrize("out_dtype", [torch.int64, "float32", 1])
def test_dtypes_that_no_loss_has(out_dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"out_dtype must be a floating-point dtype, but got {out_dtype!r}"):
        ours.cross_entropy(INPUT, CLASSES, out_dtype=out_dtype)


def test_weights_of_classes_are_no_integers() -> None:
    """Of class probabilities, which others of another dtype may promote."""
    with pytest.raises(RuntimeError, match="weight must have the dtype of input, Float, but got Long"):
        ours.cross_entropy(INPUT, INPUT.softmax(1), torch.ones(3, dtype=torch.int64))


def test_every_option_can_be_left_out() -> None:
    """Also to who checks types."""
    kinds = [kind for kind in vars(ce_ext.options).values() if is_typeddict(kind)]
    assert len(kinds) > 4
    for kind in kinds:
        assert kind.__required_keys__ == frozenset() and kind.__optional_keys__


def test_names_of_other_losses_are_unknown() -> None:
    """Though what is beneath knows them."""
    for name in ("gamma", "probabilities", "input_is_log_prob"):
        with pytest.raises(TypeError, match=rf"cross_entropy\(\) got an unexpected keyword argument '{name}'"):
            ours.cross_entropy(INPUT, CLASSES, **{name: 1})
    with pytest.raises(TypeError, match=r"nll_loss\(\) got an unexpected keyword argument 'z_loss'"):
        ours.nll_loss(INPUT, CLASSES, z_loss=0.1)
    with pytest.raises(TypeError, match=r"binary_cross_entropy\(\) got an unexpected keyword argument 'alpha'"):
        ours.binary_cross_entropy(INPUT.sigmoid(), TAGS, alpha=0.1)


def test_warning_of_an_implicit_dim_points_to_the_caller() -> None:
    calls = (
        lambda: ours.log_softmax(INPUT),
        lambda: F.log_softmax(INPUT),
        lambda: ce_ext.nn.LogSoftmax()(INPUT),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="Implicit dimension choice for log_softmax") as record:
            call()
        (warning,) = record
        assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
    with pytest.warns(UserWarning, match="Implicit dimension") as record:
        (lambda: ours.log_softmax(INPUT, None, 4))()
    assert record[0].lineno == inspect.currentframe().f_lineno - 1


def test_a_dtype_is_no_stack_level() -> None:
    """Which it is to torch for whoever takes dtype for the third argument: it is ignored there."""
    with pytest.raises(TypeError, match=r"_stacklevel must be an int, but got torch.float64 of type dtype"):
        ours.log_softmax(INPUT, 1, torch.float64)
