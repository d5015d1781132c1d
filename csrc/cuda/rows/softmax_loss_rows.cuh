// What the CUDA kernels of all losses of softmax know of a row: its logits, its weights and its place in memory.
#pragma once

#include "cuda/device/shares.cuh"
#include "host/softmax_loss_problem.h"

namespace ce_ext::cuda {

// Constants are made on the host, where float64 costs nothing; what does not change the logits is known at compile
// time.
template <bool kChanged, class A>
__device__ __forceinline__ Logits<A, kChanged> logits_of(const Logits<A, true>& on_host) {
  if constexpr (kChanged) {
    return on_host;
  } else {
    return {};
  }
}

template <class S>
__device__ __forceinline__ const S* logits_row(const SoftmaxLossProblem& p, int64_t row) {
  return static_cast<const S*>(p.input) + p.input_rows.offset(p.row_dims, row);
}

template <class A>
__device__ __forceinline__ A class_weight(const SoftmaxLossProblem& p, int64_t c) {
  return p.weight ? static_cast<const A*>(p.weight)[c] : A(1);
}

template <class A>
__device__ __forceinline__ A sample_weight(const SoftmaxLossProblem& p, int64_t row) {
  return p.sample_weight ? static_cast<const A*>(p.sample_weight)[row] : A(1);
}

// The loss of a row is a result for kNone. Else it is returned as what adds up to results, with its weight in the mean.
template <class S, class Problem>
__device__ __forceinline__ RowTotals store_row_loss(const Problem& p, int64_t row, opmath_t<S> loss,
                                                    opmath_t<S> weight) {
  if (p.reduction != Reduction::kNone) return {double(loss), double(weight)};
  store_loss<S>(p, row, loss);
  return {};
}

// What the gradient of the loss of a row is multiplied by, but for its sample weight: the same for all rows of a group
// that has one grad_output.
template <class S, class Problem>
__device__ __forceinline__ opmath_t<S> group_scale(const Problem& p, opmath_t<S> loss_scale, int64_t row) {
  using A = opmath_t<S>;
  A scale = loss_scale;
  if (p.grad_output) {
    const int64_t i = p.grad_output_rows.offset(p.row_dims, row);
    scale = p.loss_is_opmath ? static_cast<const A*>(p.grad_output)[i] : load(static_cast<const S*>(p.grad_output) + i);
  }
  if (p.denominator) scale /= static_cast<const A*>(p.denominator)[p.denominator_rows.offset(p.row_dims, row)];
  return scale;
}

// The same of the block's share, whose rows are of one group, where no grad_output differs from row to row.
template <class S, class Problem>
__device__ __forceinline__ opmath_t<S> share_scale(const Problem& p, opmath_t<S> loss_scale, const Shares& shares) {
  return shares.size(blockIdx.x) > 0 ? group_scale<S>(p, loss_scale, shares.begin(blockIdx.x)) : opmath_t<S>(0);
}

// The same of many rows: where all have one, it is found once.
template <class S, class Problem>
class GroupScale {
 public:
  __device__ __forceinline__ GroupScale(const Problem& p, opmath_t<S> loss_scale)
      : p_(p),
        loss_scale_(loss_scale),
        differ_((p.grad_output && p.grad_output_rows.differ) || (p.denominator && p.denominator_rows.differ)),
        of_all_(differ_ ? loss_scale : group_scale<S>(p, loss_scale, 0)) {}

  __device__ __forceinline__ opmath_t<S> operator()(int64_t row) const {
    return differ_ ? group_scale<S>(p_, loss_scale_, row) : of_all_;
  }

 private:
  const Problem& p_;
  opmath_t<S> loss_scale_;
  bool differ_;
  opmath_t<S> of_all_;
};

template <class S, class Problem>
__device__ __forceinline__ opmath_t<S> row_scale(const Problem& p, opmath_t<S> loss_scale, int64_t row) {
  return product(sample_weight<opmath_t<S>>(p, row), group_scale<S>(p, loss_scale, row));
}

}  // namespace ce_ext::cuda
