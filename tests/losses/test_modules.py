"""What modules are asked besides their loss: their attributes, moved, copied, saved, traced and compiled."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import Loss
from tests.support.marks import ALL_LOSSES

LOG_SOFTMAX = ce_ext.nn.LogSoftmax


def _options(loss: Loss) -> dict[str, Any]:
    """Options away from their defaults, tensors among them."""
    options = {"denominator": torch.tensor(7.0), "reduction": "mean", "out_dtype": torch.float32, **loss.extras}
    weight = torch.tensor([0.5, 1.5, 1.0, 2.0, 0.3])
    if not loss.is_binary:
        return options | {"weight": weight, "sample_weight": weight[1:], "ignore_index": (1, 3)}
    return (
        options | {"weight": weight} | ({} if loss.name == "binary_cross_entropy" else {"pos_weight": weight.flip(0)})
    )


def _make(loss: Loss) -> tuple[torch.nn.Module, tuple[Tensor, Tensor], Tensor]:
    """A module with options, what it takes, and the loss that it has by the function."""
    options, tensors = _options(loss), loss.make_inputs((4, 5), torch.float32)
    return loss.module(**options), tensors, loss.function(*tensors, **options)


@ALL_LOSSES
def test_copies(loss: Loss) -> None:
    module, tensors, expected = _make(loss)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(*tensors), expected)
        assert repr(twin) == repr(module)
        twin.reduction, twin.denominator = "sum", None
        assert not torch.equal(twin(*tensors), expected)
    assert torch.equal(module(*tensors), expected)


@ALL_LOSSES
def test_state_dict(loss: Loss) -> None:
    """Tensors are what is saved, under their names; a module that has them, too, takes them back."""
    module, tensors, expected = _make(loss)
    state = module.state_dict()
    given = {name: value for name, value in _options(loss).items() if isinstance(value, Tensor)}
    assert state.keys() == given.keys()
    other = loss.module(**{**_options(loss), **{name: torch.ones_like(value) for name, value in given.items()}})
    assert not torch.equal(other(*tensors), expected)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer), strict=True)
    assert torch.equal(other(*tensors), expected)
    plain = loss.module()
    assert not plain.state_dict()
    plain.load_state_dict(loss.reference_module().state_dict(), strict=True)


@ALL_LOSSES
def test_conversions(loss: Loss) -> None:
    module, tensors, expected = _make(loss)
    doubled = copy.deepcopy(module).double()
    assert {value.dtype for value in doubled.buffers()} == {torch.float64}
    doubled.out_dtype = torch.float64
    in_double = [x.double() if x.is_floating_point() else x for x in tensors]
    torch.testing.assert_close(doubled(*in_double), expected.double())
    assert {value.dtype for value in copy.deepcopy(module).half().buffers()} == {torch.float16}
    elsewhere = copy.deepcopy(module).to("meta")
    assert {value.device.type for value in elsewhere.buffers()} == {"meta"}
    assert elsewhere.denominator.is_meta and elsewhere.weight.is_meta


@ALL_LOSSES
def test_options_are_attributes(loss: Loss) -> None:
    """Of which the last one counts, whether it is a number or a tensor; and a call's come before them."""
    tensors = loss.make_inputs((4, 5), torch.float32)
    module = loss.module(reduction="mean")
    assert module.denominator is None and module.on_empty == "nan"
    for denominator in (3, torch.tensor(4.0), 5.0, torch.tensor(6.0), None):
        module.denominator = denominator
        expected = loss.function(*tensors, reduction="mean", denominator=denominator)
        assert torch.equal(module(*tensors), expected)
        assert (f"denominator={denominator!r}" in repr(module)) == isinstance(denominator, (int, float))
        assert ("denominator" in module.state_dict()) == isinstance(denominator, Tensor)
    module.denominator = 3
    expected = loss.function(*tensors, reduction="mean", denominator=8)
    assert torch.equal(module(*tensors, denominator=8), expected)
    module.denominator, module.reduction = None, "sum"
    assert torch.equal(module(*tensors), loss.function(*tensors, reduction="sum"))
    if not loss.is_binary:
        module.sample_weight = weight = torch.rand(4)
        assert torch.equal(module(*tensors), loss.function(*tensors, reduction="sum", sample_weight=weight))
        module.sample_weight, module.ignore_index = None, 2
        assert torch.equal(module(*tensors), loss.function(*tensors, reduction="sum", ignore_index=2))


def test_alpha_is_a_number_or_a_tensor() -> None:
    module = ce_ext.nn.SigmoidFocalLoss(alpha=torch.full((5,), 0.5))
    input, target = torch.randn(4, 5), torch.rand(4, 5)
    assert list(module.state_dict()) == ["alpha"]
    for alpha in (0.3, torch.rand(5)):
        module.alpha = alpha
        assert torch.equal(module(input, target), ce_ext.functional.sigmoid_focal_loss(input, target, alpha=alpha))


@ALL_LOSSES
def test_reduction_is_checked_by_the_constructor(loss: Loss) -> None:
    with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', but got 'avg'"):
        loss.module(reduction="avg")


@ALL_LOSSES
def test_what_is_no_tensor(loss: Loss) -> None:
    for name in ("weight", "pos_weight", "sample_weight"):
        if name in _options(loss):
            with pytest.raises(TypeError, match=f"cannot assign 'list' object to buffer '{name}'|as buffer '{name}'"):
                loss.module(**{name: [1.0, 2.0]})


def test_isinstance() -> None:
    """Of what torch has, and of nothing else: a focal loss is no cross entropy."""
    for name in ("CrossEntropyLoss", "NLLLoss", "LogSoftmax", "BCELoss", "BCEWithLogitsLoss"):
        module = getattr(ce_ext.nn, name)()
        assert isinstance(module, getattr(torch.nn, name)) and type(module).__module__ == "ce_ext.nn"
    assert not isinstance(ce_ext.nn.SoftmaxFocalLoss(), torch.nn.CrossEntropyLoss)
    assert not isinstance(ce_ext.nn.SigmoidFocalLoss(), torch.nn.BCEWithLogitsLoss)


class _Model(torch.nn.Module):
    def __init__(self, criterion: torch.nn.Module) -> None:
        super().__init__()
        self.layer, self.criterion = torch.nn.Linear(5, 5), criterion

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.criterion(self.layer(input).sigmoid(), target)


@pytest.mark.torch_modes
@ALL_LOSSES
def test_fx(loss: Loss) -> None:
    """A criterion, a model that has one, and the function: with their options, and those of the call."""
    module, tensors, expected = _make(loss)
    traced = torch.fx.symbolic_trace(module)
    for graph in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert torch.equal(graph(*tensors), expected)
        assert torch.equal(graph(*tensors, denominator=3), module(*tensors, denominator=3))
    assert traced.state_dict().keys() == module.state_dict().keys()

    model = _Model(module)
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(*tensors), model(*tensors))

    function = getattr(ce_ext.functional, loss.name)
    assert any(node.target is function for node in traced.graph.nodes)
    traced = torch.fx.symbolic_trace(function)
    options = {"reduction": "mean"} | _options(loss)
    assert torch.equal(traced(*tensors, **options), function(*tensors, **options))


@pytest.mark.torch_modes
def test_fx_of_log_softmax() -> None:
    input = torch.randn(4, 5)
    for traced in (LOG_SOFTMAX(1), ce_ext.functional.log_softmax):
        graph = torch.fx.symbolic_trace(traced)
        assert torch.equal(graph(input, *(() if isinstance(traced, LOG_SOFTMAX) else (1,))), LOG_SOFTMAX(1)(input))


def test_log_softmax() -> None:
    module, input = LOG_SOFTMAX(-1), torch.randn(4, 5)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.deepcopy(module).half().to("meta")):
        assert repr(twin) == "LogSoftmax(dim=-1)" and torch.equal(twin(input), module(input))


@pytest.mark.torch_modes
@ALL_LOSSES
def test_compiled(loss: Loss) -> None:
    torch.compiler.reset()
    module, tensors, expected = _make(loss)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), expected)
    module.denominator = None
    torch.testing.assert_close(compiled(*tensors), module(*tensors))


SCRIPTABLE: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{}, {"weight": True, "ignore_index": 2, "label_smoothing": 0.1}, {"z_loss": 0.1, "softcap": 2.0}],
    "nll_loss": [{}, {"weight": True, "ignore_index": 2, "reduction": "none"}, {"on_empty": "zero"}],
    "softmax_focal_loss": [{}, {"gamma": 1.5, "weight": True, "reduction": "sum"}],
    "binary_cross_entropy": [{}, {"weight": True, "reduction": "sum"}, {"ignore_index": 1, "reduction": "none"}],
    "binary_cross_entropy_with_logits": [{}, {"weight": True, "pos_weight": True}, {"label_smoothing": 0.1}],
    "sigmoid_focal_loss": [{}, {"alpha": 0.7, "gamma": 1.5, "reduction": "mean"}, {"alpha": True}],
    "asymmetric_loss": [{}, {"gamma_neg": 2.5, "gamma_pos": 0.0, "margin": 0.2, "reduction": "sum"}],
}


@pytest.mark.torch_modes
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@ALL_LOSSES
def test_script(loss: Loss) -> None:
    """By itself and in a model, saved and loaded, with its gradient."""
    input, *targets = loss.make_inputs((4, 5), torch.float32)
    input.requires_grad_()
    takes_probabilities = loss.name in ("cross_entropy", "softmax_focal_loss")
    targets += [torch.rand(4, 5)] if takes_probabilities else []
    targets += [torch.tensor([0, 5, 2, 4])] if loss.name in ("sigmoid_focal_loss", "asymmetric_loss") else []
    for options in SCRIPTABLE[loss.name]:
        options = {name: torch.linspace(0.2, 0.9, 5) if value is True else value for name, value in options.items()}
        criterion = loss.module(**options)
        model = _Model(criterion)
        of_model = torch.jit.script(copy.deepcopy(model))  # which would replace its criterion
        of_criterion, buffer = torch.jit.script(criterion), io.BytesIO()
        torch.jit.save(of_model, buffer)
        buffer.seek(0)
        for eager, scripted in ((criterion, of_criterion), (model, of_model), (model, torch.jit.load(buffer))):
            for target in targets:
                if takes_probabilities and target.is_floating_point() and "ignore_index" in options:
                    continue  # of class probabilities, which have no class to ignore
                (grad,) = torch.autograd.grad(eager(input, target).sum(), input)
                loss_ = scripted(input, target)
                torch.testing.assert_close(loss_, eager(input, target))
                torch.testing.assert_close(torch.autograd.grad(loss_.sum(), input)[0], grad)


@pytest.mark.torch_modes
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_script_of_log_softmax() -> None:
    for dim in (0, -1):
        input = torch.randn(3, 5, 2)
        assert torch.equal(torch.jit.script(LOG_SOFTMAX(dim))(input), LOG_SOFTMAX(dim)(input))
    for shape in ((), (5,), (3, 5), (3, 5, 2), (3, 5, 2, 1)):
        input = torch.randn(shape)
        with pytest.warns(UserWarning, match="Implicit dimension"):
            expected = LOG_SOFTMAX()(input)
        assert torch.equal(torch.jit.script(LOG_SOFTMAX())(input), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_script_of_the_mean_over_nothing() -> None:
    input, target = torch.zeros(3, 5), torch.full((3,), -100)
    for module in (ce_ext.nn.CrossEntropyLoss, ce_ext.nn.NLLLoss, ce_ext.nn.SoftmaxFocalLoss):
        assert torch.jit.script(module())(input, target).isnan()
        assert torch.jit.script(module(on_empty="zero"))(input, target) == 0


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_script_of_a_mean_with_a_denominator() -> None:
    tensors = torch.rand(3, 5), torch.rand(3, 5)
    for module in (ce_ext.nn.CrossEntropyLoss, ce_ext.nn.SoftmaxFocalLoss, ce_ext.nn.BCELoss):
        criterion = module(denominator=7)
        assert torch.equal(torch.jit.script(copy.deepcopy(criterion))(*tensors), criterion(*tensors))
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        torch.jit.script(ce_ext.nn.BCELoss(denominator=7, reduction="sum"))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("criterion", "dtype"),
    [
        (ce_ext.nn.SoftmaxFocalLoss(gamma=2, ignore_index=np.int64(1)), torch.int64),
        (ce_ext.nn.CrossEntropyLoss(softcap=np.float32(3), label_smoothing=0), torch.int64),
        (ce_ext.nn.CrossEntropyLoss(), torch.float64),
        (ce_ext.nn.CrossEntropyLoss(weight=torch.ones(5, dtype=torch.float64)), torch.float32),
        (ce_ext.nn.CrossEntropyLoss(weight=torch.ones(5)), torch.float64),
        (ce_ext.nn.CrossEntropyLoss(sample_weight=torch.ones(4)), torch.float64),
        (ce_ext.nn.SigmoidFocalLoss(alpha=1, gamma=2), torch.float64),
        (ce_ext.nn.AsymmetricLoss(gamma_neg=4, gamma_pos=1, margin=0), torch.int64),
        (ce_ext.nn.BCEWithLogitsLoss(), torch.float64),
    ],
    ids=lambda x: type(x).__name__,
)
def test_script_takes_the_numbers_and_promotes_as_eager_mode_does(criterion: Any, dtype: torch.dtype) -> None:
    input = torch.randn(4, 5)
    if dtype == torch.int64 and not isinstance(criterion, ce_ext.nn.AsymmetricLoss):
        target = torch.tensor([0, 1, 4, 2])
    else:
        target = torch.rand(4, 5).round().to(dtype)
    expected = criterion(input, target)
    torch.testing.assert_close(torch.jit.script(copy.deepcopy(criterion))(input, target), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_script_refuses_what_only_python_does() -> None:
    for options, shown in (
        ({"denominator": torch.tensor(3)}, r"denominator=tensor\(3\)"),
        ({"return_stats": True}, "return_stats=True"),
        ({"inplace": True}, "inplace=True"),
        ({"dim": -1}, "dim=-1"),
        ({"out_dtype": torch.float64}, "out_dtype=torch.float64"),
        ({"ignore_index": (1, 2)}, r"ignore_index=\(1, 2\)"),
    ):
        with pytest.raises(NotImplementedError, match=f"torch.jit.script takes no {shown} of a CrossEntropyLoss"):
            torch.jit.script(ce_ext.nn.CrossEntropyLoss(**options))
    scripted = torch.jit.script(ce_ext.nn.CrossEntropyLoss(ignore_index=1))
    with pytest.raises(torch.jit.Error, match="ignore_index is for targets of class indices"):
        scripted(torch.zeros(3, 5), torch.zeros(3, 5))
    scripted = torch.jit.script(ce_ext.nn.BCEWithLogitsLoss())
    with pytest.raises(torch.jit.Error, match="target must have the shape of input"):
        scripted(torch.zeros(3, 5), torch.tensor([0, 1, 2]))
