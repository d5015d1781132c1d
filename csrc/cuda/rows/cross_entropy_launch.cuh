// What the launches of the passes of cross entropy have in common.
#pragma once

#include "cuda/rows/cross_entropy_by_class.cuh"
#include "cuda/rows/cross_entropy_by_row.cuh"
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
    A* weight_sum = Workspace(context).weight_sum<A>();
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

// The workspace of rows that several blocks share, with room for their gradients or not.
inline int64_t parts_bytes(const CrossEntropyForward& p, bool with_grad) {
  const RowParts parts(p.rows, p.classes, size_of(p.dtype));
  if (parts.per_row == 1) return 0;
  const int64_t sums = parts.per_row * sizeof(RowSums<double, FullForm<Gaps::kSum>>);
  return p.rows * (sums + (with_grad ? sizeof(RowGradient<double, true>) : 0));
}

// Launches the kernel that such rows take, whose gradients go to `gradients`, if they are wanted.
template <class S, class Form, class Problem>
void launch_parts(const Problem& problem, const RowParts& parts, const DeviceLoss<opmath_t<S>>& loss,
                  const LaunchContext& context, RowGradient<opmath_t<S>, Form::kLogitsChange>* gradients) {
  constexpr bool kMany = kManyRegisters<S, Form>;
  const CrossEntropyForward& p = forward_of(problem);
  const RowShape shape = block_of(shape_of(Pass::kForward, parts.classes * sizeof(S), max_row_threads(kMany)));
  const Workspace workspace(context);
  auto* part_sums = reinterpret_cast<RowSums<opmath_t<S>, Form>*>(workspace.parts());
  dispatch_packs<kMany>(shape, [&](auto packs) {
    LAUNCH((cross_entropy_parts_by_class<S, Form, packs.value, Problem>), p.rows * parts.per_row, shape.threads,
           context.stream, problem, loss, shape, parts, Shares(p.rows, p.groups, 1), workspace.scratch(), part_sums,
           gradients);
  });
}

// Launches the backward kernel of rows whose classes lie side by side; `gradients` as there.
template <class S, bool kLogitsChange>
void launch_backward_by_class(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss,
                              const RowGradient<opmath_t<S>, kLogitsChange>* gradients, cudaStream_t stream) {
  const RowShape shape = shape_of(Pass::kBackward, p.classes * sizeof(S), kMaxBackwardThreads);
  const unsigned chunks = chunks_of_row<kBackwardPacks, S>(p.classes, shape.lanes);
  LAUNCH((cross_entropy_backward_by_class<S, kLogitsChange>), divide_up(p.rows, teams_of(shape)) * chunks,
         shape.threads, stream, p, loss, shape, chunks, gradients);
}

}  // namespace ce_ext::cuda
