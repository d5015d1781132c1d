// The kernels of binary cross entropy, each in two forms: of plain problems, in packs, and of any problem, element by
// element. A block takes a slice of the elements.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/elements.cuh"
#include "cuda/group_totals.cuh"
#include "cuda/policy.cuh"

namespace ce_ext::cuda {

// Equal groups of elements, each cut into slices, the last of which may be shorter.
struct Slices {
  int64_t group_elements;
  int64_t per_group;
};

// The elements of a block.
struct Slice {
  int64_t begin, end;

  __device__ explicit Slice(const Slices& slices) {
    const int64_t group_begin = blockIdx.x / slices.per_group * slices.group_elements;
    const int64_t group_end = group_begin + slices.group_elements;
    begin = group_begin + blockIdx.x % slices.per_group * kElementsPerSlice;
    end = group_end - begin > kElementsPerSlice ? begin + kElementsPerSlice : group_end;
  }

  __device__ int64_t size() const { return end - begin; }
};

// What a thread has added up, as the totals of its block.
template <class A>
__device__ __forceinline__ void store_totals(A sum, int64_t count, RowTotals* totals) {
  const RowTotals total = block_reduce<kThreadsByElement>(RowTotals{double(sum), double(count)});
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

// The losses of the elements for kNone, or the totals of every slice.
template <class S, BinaryInput kInput>
__global__ void __launch_bounds__(kThreadsByElement, min_blocks(kThreadsByElement, /*many_registers=*/true))
    binary_cross_entropy_forward_in_packs(BinaryCrossEntropyForward p, BinaryCrossEntropy<opmath_t<S>, kInput> loss,
                                          Slices slices, RowTotals* totals) {
  using A = opmath_t<S>;
  const Slice slice(slices);
  const PlainElements<S> elements(p);
  const bool is_none = p.reduction == Reduction::kNone;
  RowSplit<S> split = elements.split(slice.begin, slice.size());
  if (is_none) share_result<S>(p.loss, p.loss_is_opmath, slice.begin, slice.size(), split);
  A sum(0);
  int count = 0;
  for_each_pack<kThreadsByElement>(split, slice.size(), [&](int64_t c, auto n) {
    PlainPack<A, n.value> pack;
    elements.load(slice.begin + c, pack);
#pragma unroll
    for (int k = 0; k < n.value; ++k) {
      pack.x[k] = product(pack.factor[k], loss.loss(pack.x[k], elements.target(pack, k)));
      sum += pack.x[k];
    }
    count += n.value;
    if (is_none) store_result<S>(p.loss, p.loss_is_opmath, slice.begin + c, pack.x);
  });
  if (!is_none) store_totals(sum, count, totals);
}

template <class S, BinaryInput kInput>
__global__ void __launch_bounds__(kThreadsByElement, min_blocks(kThreadsByElement, /*many_registers=*/true))
    binary_cross_entropy_forward_by_element(BinaryCrossEntropyForward p, BinaryCrossEntropy<opmath_t<S>, kInput> loss,
                                            Slices slices, RowTotals* totals) {
  using A = opmath_t<S>;
  const Slice slice(slices);
  const bool is_none = p.reduction == Reduction::kNone;
  A sum(0);
  int count = 0;
  for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += kThreadsByElement) {
    const ElementOffsets at = locate(p, i);
    const Element<A> e = load_element<S>(p, at);
    const A value = e.is_ignored ? A(0) : product(e.factor, loss.loss(e.x, e.target));
    sum += value;
    count += !e.is_ignored;
    if (is_none) store_loss<S>(p, at.results[0], value);
  }
  if (!is_none) store_totals(sum, count, totals);
}

template <class S, BinaryInput kInput>
__global__ void __launch_bounds__(kThreadsByElement, min_blocks(kThreadsByElement, /*many_registers=*/true))
    binary_cross_entropy_backward_in_packs(BinaryCrossEntropyBackward p, BinaryCrossEntropy<opmath_t<S>, kInput> loss,
                                           Slices slices) {
  using A = opmath_t<S>;
  const Slice slice(slices);
  const PlainElements<S> elements(p);
  RowSplit<S> split = elements.split(slice.begin, slice.size());
  if (p.grad_input) share_result<S>(p.grad_input, false, slice.begin, slice.size(), split);
  if (p.grad_target) share_result<S>(p.grad_target, p.grad_target_is_opmath, slice.begin, slice.size(), split);
  for_each_pack<kThreadsByElement>(split, slice.size(), [&](int64_t c, auto n) {
    PlainPack<A, n.value> pack;
    elements.load(slice.begin + c, pack);
    A grad[n.value];
    if (p.grad_input) {
#pragma unroll
      for (int k = 0; k < n.value; ++k) {
        grad[k] = product(pack.factor[k], loss.in_input(pack.x[k], elements.target(pack, k)));
      }
      store_result<S>(p.grad_input, false, slice.begin + c, grad);
    }
    if (p.grad_target) {
#pragma unroll
      for (int k = 0; k < n.value; ++k) {
        grad[k] = product(pack.factor[k], loss.in_target(pack.x[k], elements.target(pack, k)));
      }
      store_result<S>(p.grad_target, p.grad_target_is_opmath, slice.begin + c, grad);
    }
  });
}

template <class S, BinaryInput kInput>
__global__ void __launch_bounds__(kThreadsByElement, min_blocks(kThreadsByElement, /*many_registers=*/true))
    binary_cross_entropy_backward_by_element(BinaryCrossEntropyBackward p, BinaryCrossEntropy<opmath_t<S>, kInput> loss,
                                             Slices slices) {
  using A = opmath_t<S>;
  const Slice slice(slices);
  for (int64_t i = slice.begin + threadIdx.x; i < slice.end; i += kThreadsByElement) {
    const ElementOffsets at = locate(p, i);
    const Element<A> e = load_element<S>(p, at);
    if (p.grad_input) {
      const A grad[1] = {e.is_ignored ? A(0) : product(e.factor, loss.in_input(e.x, e.target))};
      store_result<S>(p.grad_input, false, at.results[0], grad);
    }
    if (p.grad_target) {
      const A grad[1] = {e.is_ignored ? A(0) : product(e.factor, loss.in_target(e.x, e.target))};
      store_result<S>(p.grad_target, p.grad_target_is_opmath, at.results[1], grad);
    }
  }
}

}  // namespace ce_ext::cuda
