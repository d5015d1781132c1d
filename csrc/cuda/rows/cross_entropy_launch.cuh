// What the launches of the passes of cross entropy have in common.
#pragma once

#include "cuda/rows/cross_entropy_by_class.cuh"
#include "cuda/rows/cross_entropy_by_row.cuh"
#include "cuda/rows/cross_entropy_in_tiles.cuh"
#include "cuda/rows/row_launch.cuh"

namespace ce_ext::cuda {

// One block: the sum of the class weights, which label smoothing needs.
template <class A>
__global__ void __launch_bounds__(kThreadsToSum) sum_weights(const A* weight, int64_t classes, A* weight_sum) {
  Sum<double> sum;
#pragma unroll 8
  for (int64_t c = threadIdx.x; c < classes; c += kThreadsToSum) sum.value += double(weight[c]);
  sum = block_reduce(sum);
  if (threadIdx.x == 0) *weight_sum = A(sum.value);
}

template <class A>
DeviceLoss<A> make_loss(const CrossEntropyProblem& p, double loss_scale, const LaunchContext& context) {
  DeviceLoss<A> loss{{p.options, p.classes, A(p.classes)},
                     Logits<A, true>(p.options.logits),
                     A(loss_scale),
                     nullptr,
                     context.bad_target};
  if (p.weight && p.options.label_smoothing > 0) {
    A* weight_sum = context.allocate<A>(1);
    LAUNCH((sum_weights<A>), 1, kThreadsToSum, context.stream, static_cast<const A*>(p.weight), p.classes, weight_sum);
    loss.weight_sum = weight_sum;
  }
  return loss;
}

template <class A>
DeviceLoss<A> make_loss(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  return make_loss<A>(p.forward, p.backward.loss_scale, context);
}

// Of rows whose classes lie side by side. Its kernels take as long to compile as all others with the gradient.
void launch_by_class(const CrossEntropyWithGrad& p, const LaunchContext& context);

// Of those of them that a cluster streams through its shared memory.
bool fits_cluster(const CrossEntropyWithGrad& problem);
void launch_by_cluster(const CrossEntropyWithGrad& problem, const LaunchContext& context);

// Of rows that lie side by side, in the plain form without an option of the loss, up to so many classes. Its kernels
// are compiled apart, too.
template <class S, class Form>
bool are_pixels(const CrossEntropyProblem& p) {
  return kIsPlain<Form> && sizeof(S) <= sizeof(float) && p.options.gamma == 0 && p.options.z_loss == 0 &&
         p.classes > 0 && p.classes <= kMaxSlices * kMaxPlanes;
}
void launch_of_pixels(const CrossEntropyForward& p, const LaunchContext& context);
void launch_of_pixels(const CrossEntropyBackward& p, const LaunchContext& context);
void launch_of_pixels(const CrossEntropyWithGrad& p, const LaunchContext& context);

template <class S, class Form>
TileShape tile_shape(const CrossEntropyProblem& p) {
  const int64_t row_bytes = p.classes * sizeof(S);
  return TileShape(row_bytes, row_bytes, sizeof(S), kIsOften<S, Form>, p.input);
}

// Calls f with the form of a backward pass.
template <class F>
void dispatch_form(const CrossEntropyBackward& p, const F& f) {
  if (p.options.logits.change()) return f(FullForm<Gaps::kSum>());
  p.options.label_smoothing > 0 ? f(GapsForm<Gaps::kSum>()) : f(PlainForm());
}

// Rows that are few and long have parts, by class.
inline RowParts parts_of(const CrossEntropyForward& p) { return RowParts(p.rows, p.classes, size_of(p.dtype)); }

}  // namespace ce_ext::cuda
