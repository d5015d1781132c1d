#include "cuda/binary_cross_entropy.cuh"
#include "cuda/launch.h"

namespace ce_ext::cuda {
namespace {

// As PlainElements has it.
template <class Problem>
bool is_plain(const Problem& p, const RowStrides& result1, const RowStrides& result2) {
  const auto is_contiguous = [](const RowStrides& strides) { return strides.strides[0] == 1; };
  const auto is_one_number = [](const Operand& operand) { return !operand.data || operand.strides.strides[0] == 0; };
  const auto is_either = [&](const Operand& operand) {
    return is_one_number(operand) || is_contiguous(operand.strides);
  };
  const bool has_integers = p.target.type > NumberType::kUInt8;
  const bool has_more = !is_one_number(p.pos_weight) || p.class_alpha.data || p.has_ignored || p.target_is_class;
  return p.dims.ndim == 1 && !has_integers && !has_more && is_contiguous(p.input.strides) &&
         is_contiguous(p.target.strides) && is_either(p.weight) && is_either(p.grad_output) &&
         is_one_number(p.divisor) && is_contiguous(result1) && is_contiguous(result2);
}

bool is_plain(const BinaryCrossEntropyForward& p) { return is_plain(p, p.loss_strides, p.loss_strides); }
bool is_plain(const BinaryCrossEntropyBackward& p) { return is_plain(p, p.grad_input_strides, p.grad_target_strides); }

// Elements that a thread takes at a time where the problem is not plain: one where longer runs would seldom be whole.
template <class S>
int run_length(const BinaryCrossEntropyProblem& p) {
  return p.dims.sizes[p.dims.ndim - 1] >= kMinRuns * kPackSize<S> ? kPackSize<S> : 1;
}

template <class S, class Problem>
Shares shares_of(const Problem& p, int64_t groups) {
  constexpr int64_t kTileInPacks = kThreadsByElement * kPacksInFlight * kPackSize<S>;
  return Shares(p.elements, groups, is_plain(p) ? kTileInPacks : kTileInRuns * run_length<S>(p));
}

// Calls f with a constant, the length of runs.
template <class S, class F>
void dispatch_run(const BinaryCrossEntropyProblem& p, const F& f) {
  if (run_length<S>(p) > 1) return f(std::integral_constant<int, kPackSize<S>>());
  f(std::integral_constant<int, 1>());
}

// Calls f with a value of the type of the targets of a plain problem.
template <class S, class F>
void dispatch_target(NumberType type, F f) {
  if (type == NumberType::kUInt8) return f(uint8_t());
  if (type == NumberType::kOpMath) return f(opmath_t<S>());
  f(S());
}

// Calls f with the loss: without powers where gamma needs none.
template <class S, class F>
void dispatch_loss(const BinaryCrossEntropyProblem& p, F f) {
  using A = opmath_t<S>;
  dispatch_input(p, [&](auto input) {
    if constexpr (input.value == BinaryInput::kFocalLogit) {
      if (!has_whole_power(p.options)) return f(BinaryCrossEntropy<A, input.value, true>::template make<A>(p.options));
    }
    f(BinaryCrossEntropy<A, input.value, false>::template make<A>(p.options));
  });
}

template <class S, class Loss>
void launch_forward(const BinaryCrossEntropyForward& p, const Loss& loss, const LaunchContext& context) {
  const Shares shares = shares_of<S>(p, p.groups);
  const Scratch scratch{static_cast<RowTotals*>(context.workspace), context.counters};
  if (p.elements > 0 && is_plain(p)) {  // of no elements, not even what is one number for all is there
    dispatch_target<S>(p.target.type, [&](auto number) {
      using N = decltype(number);
      LAUNCH((binary_cross_entropy_forward_in_packs<S, N, Loss>), shares.count, kThreadsByElement, context.stream, p,
             loss, shares, scratch);
    });
  } else {
    dispatch_run<S>(p, [&](auto run) {
      LAUNCH((binary_cross_entropy_forward_in_runs<S, Loss, run.value>), shares.count, kThreadsByElement,
             context.stream, p, loss, shares, scratch, context.bad_target);
    });
  }
}

template <class S, class Loss>
void launch_backward(const BinaryCrossEntropyBackward& p, const Loss& loss, const LaunchContext& context) {
  const Shares shares = shares_of<S>(p, 1);
  if (is_plain(p)) {
    dispatch_target<S>(p.target.type, [&](auto number) {
      using N = decltype(number);
      LAUNCH((binary_cross_entropy_backward_in_packs<S, N, Loss>), shares.count, kThreadsByElement, context.stream, p,
             loss, shares);
    });
  } else {
    dispatch_run<S>(p, [&](auto run) {
      LAUNCH((binary_cross_entropy_backward_in_runs<S, Loss, run.value>), shares.count, kThreadsByElement,
             context.stream, p, loss, shares, context.bad_target);
    });
  }
}

}  // namespace

int64_t workspace_size(const BinaryCrossEntropyForward& problem) {
  if (problem.reduction == Reduction::kNone) return 0;
  int64_t bytes = 0;
  dispatch<__half, __nv_bfloat16>(
      problem.dtype, [&](auto s) { bytes = shares_of<decltype(s)>(problem, problem.groups).totals_bytes(); });
  return bytes;
}
int64_t workspace_size(const BinaryCrossEntropyBackward&) { return 0; }

void launch(const BinaryCrossEntropyForward& problem, const LaunchContext& context) {
  const bool has_losses = problem.reduction == Reduction::kNone ? problem.elements > 0 : problem.groups > 0;
  if (!has_losses) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    dispatch_loss<S>(problem, [&](const auto& loss) { launch_forward<S>(problem, loss, context); });
  });
}

void launch(const BinaryCrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.elements == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    dispatch_loss<S>(problem, [&](const auto& loss) { launch_backward<S>(problem, loss, context); });
  });
}

}  // namespace ce_ext::cuda
