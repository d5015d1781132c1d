// The kernels of cross entropy for rows that lie side by side, as pixels of images do, where no option asks for more
// than the sum of exponentials. A plane is what pixels have of a class. A thread has a word of each: one pixel, or two
// of halves. It holds up to kHeldPlanes of them, which are on their way at the same time. Where there are more classes,
// the threads of a block that have the same pixels share them.
#pragma once

#include <algorithm>

#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/thread_rows.cuh"

namespace ce_ext::cuda {

template <class S>
using PixelRows = StridedRows<S, kPixelsOfThread<S>>;

// How the threads of a block share the classes of its pixels: slices of them are of a size, or one larger.
struct ClassSlices {
  int count;
  int size;    // of the smaller ones
  int larger;  // the first so many
  int lanes;   // threads that have the same slice, each of other pixels

  explicit ClassSlices(int64_t classes)
      : count(int(std::max<int64_t>(1, divide_up(classes, kMaxPlanes)))),
        size(int(classes) / count),
        larger(int(classes) % count),
        lanes(kPixelThreads / kWarpSize / count * kWarpSize) {}

  int threads() const { return count * lanes; }
  int max_size() const { return size + (larger > 0); }
  template <class S>
  __host__ __device__ int pixels() const {
    return lanes * kPixelsOfThread<S>;
  }
};

// The planes that a thread holds, of the classes of a chunk. All but the last 8 of kPlanes are sure to be there.
template <class S, int kPlanes>
struct HeldPlanes {
  static constexpr int kRows = kPixelsOfThread<S>;
  using A = opmath_t<S>;
  using Plane = Numbers<S, kRows>;

  Plane planes[kPlanes];

  __device__ __forceinline__ void load(const PixelRows<const S>& x, int64_t first, int count) {
    const S* plane = x.data + first * x.stride;
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) {
      if (is_there(i, count)) {
        planes[i] = *reinterpret_cast<const Plane*>(plane);
      } else {
        planes[i] = filled<S, kRows>(A(-INFINITY));
      }
      plane += x.stride;
    }
  }

  // What they add up to, row by row. They are added up in parts: a long sum of terms that are all alike would round each
  // of them the same way.
  template <class Sums>
  __device__ __forceinline__ void sum(Sums (&sums)[kRows]) const {
    Plane champion = planes[0];
#pragma unroll
    for (int i = 1; i < kPlanes; ++i) champion.stored[0] = maximum(champion.stored[0], planes[i].stored[0]);
    A max[kRows];
    convert(champion, max);
    champion = planes[0];
    Sums part[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r].max = part[r].max = max[r];
#pragma unroll
    for (int i = 1; i < kPlanes; ++i) {
      const Plane loser{match(champion.stored[0], planes[i].stored[0])};
      A values[kRows];
      convert(loser, values);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        part[r].add_loser(values[r]);
        if (i % 8 == 7) {
          sums[r].add_sums(part[r]);
          part[r].exp_sum = A(0);
        }
      }
    }
  }

  __device__ __forceinline__ void set_to_zero(int row) {
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) {
      A values[kRows];
      convert(planes[i], values);
      values[row] = A(0);
      convert(values, planes[i]);
    }
  }

  static __device__ __forceinline__ bool is_there(int i, int count) { return i < kPlanes - 8 || i < count; }
};

// A gradient of plain form, as far as it is the same for all classes, so that threads can tell each other. Rows that
// have no target have none here: their logits are taken for 0.
template <class A>
struct PixelGradient {
  static constexpr int kNoTarget = INT_MIN / 2;
  RowStats<A> stats;
  A factor;
  A at_target;
  int target;

  PixelGradient() = default;
  __device__ explicit PixelGradient(const RowGradient<A, PlainForm>& row, A x_target)
      : stats(row.gradient.stats),
        factor(row.gradient.hard + row.gradient.soft),
        at_target(row.at_target(x_target)),
        target(row.reads_logits() ? int(row.target) : kNoTarget) {}

  __device__ bool reads_logits() const { return target != kNoTarget; }
  __device__ __forceinline__ A at(A x) const {
    const CrossEntropyGradient<A, false> gradient{stats, factor, A(0), A(0), A(0), {}};
    return gradient.at(x);
  }
};

// That no option is asked for, the compiler shall know.
template <class A>
__device__ __forceinline__ DeviceLoss<A> without_options(DeviceLoss<A> loss) {
  loss.on_host.is_smoothed = loss.on_host.is_focal = loss.on_host.has_z_loss = false;
  loss.weight_sum = nullptr;
  return loss;
}

// What a thread of a block has to do with its pixels.
template <class S, int kPlanes>
class PixelThread {
 public:
  static constexpr int kRows = kPixelsOfThread<S>;
  using A = opmath_t<S>;
  using Sums = RowSums<A, PlainForm>;
  using Held = HeldPlanes<S, kPlanes>;

  __device__ PixelThread(const ClassSlices& slices)
      : slices_(slices), slice_(int(threadIdx.x) / slices.lanes), lane_(int(threadIdx.x) % slices.lanes) {}

  // The first of its rows, of those of the block.
  __device__ int first_row() const { return lane_ * kRows; }
  // Of the threads that have the same rows, one finishes them.
  __device__ bool leads() const { return slice_ == 0; }

  // Its classes.
  __device__ int first() const {
    return slice_ * slices_.size + (slice_ < slices_.larger ? slice_ : slices_.larger);
  }
  __device__ int count() const { return slices_.size + (slice_ < slices_.larger); }

  __device__ __forceinline__ void sum(const Held& held, Sums (&sums)[kRows]) const {
    SoftmaxSums<A, Gaps::kNone> softmax[kRows];
    held.sum(softmax);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r].softmax = softmax[r];
  }

  // Those of all slices, for the threads that lead. All threads of the block call it.
  __device__ __forceinline__ void merge_slices(Sums (&sums)[kRows]) const {
    struct Part {
      A max, exp_sum;
    };
    SHARED_ARRAY(Part, parts, kPixelThreads * kRows);
    if (slices_.count == 1) return;
    Part* own = parts + threadIdx.x * kRows;
#pragma unroll
    for (int r = 0; r < kRows; ++r) own[r] = {sums[r].softmax.max, sums[r].softmax.exp_sum};
    __syncthreads();
    if (leads()) {
      for (int slice = 1; slice < slices_.count; ++slice) {
        own += slices_.lanes * kRows;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          Sums other;
          other.softmax.max = own[r].max;
          other.softmax.exp_sum = own[r].exp_sum;
          sums[r].merge(other);
        }
      }
    }
    __syncthreads();  // parts is free for the next call
  }

  // What the threads that lead have, for all. All threads of the block call it.
  __device__ __forceinline__ void share(PixelGradient<A> (&gradients)[kRows]) const {
    SHARED_ARRAY(PixelGradient<A>, shared, kPixelThreads / 2 * kRows);
    if (slices_.count == 1) return;
    PixelGradient<A>* own = shared + lane_ * kRows;
    if (leads()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) own[r] = gradients[r];
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) gradients[r] = own[r];
    __syncthreads();  // shared is free for the next call
  }

  // Writes the gradient, over the logits if need be.
  __device__ __forceinline__ void write(Held& held, const PixelGradient<A> (&gradients)[kRows],
                                        const PixelRows<S>& grad_x) const {
    int targets[kRows];  // among the planes
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      targets[r] = gradients[r].target - first();
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!gradients[r].reads_logits()) held.set_to_zero(r);
    }
    S* plane = grad_x.data + first() * grad_x.stride;
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) {
      A values[kRows];
      convert(held.planes[i], values);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const A value = gradients[r].at(values[r]);
        values[r] = targets[r] == i ? gradients[r].at_target : value;
      }
      if (Held::is_there(i, count())) store_pack(plane, values, /*aligned=*/true, /*streams=*/false);
      plane += grad_x.stride;
    }
  }

 private:
  const ClassSlices& slices_;
  int slice_;
  int lane_;
};

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelRegisters<kPlanes>))
    cross_entropy_forward_of_pixels(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss_, ClassSlices slices,
                                    Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  using Thread = PixelThread<S, kPlanes>;
  constexpr int kRows = Thread::kRows;
  const DeviceLoss<A> loss = without_options(loss_);
  const Thread thread(slices);
  RowTotals totals;
  const int64_t begin = shares.begin(blockIdx.x);
  const int size = shares.size(blockIdx.x);
  for (int i = 0; i < size; i += slices.pixels<S>()) {
    const int64_t row = begin + i + thread.first_row();
    const bool is_there = i + thread.first_row() < size;
    const bool leads = is_there && thread.leads();
    typename Thread::Sums sums[kRows];
    RowTarget<A> targets[kRows];
    if (is_there) {
      const PixelRows<const S> x{logits_row<S>(p, row), p.input_class_stride};
      int64_t indices[kRows];
      if (leads) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) indices[r] = p.target[row + r];
      }
      typename Thread::Held held;
      held.load(x, thread.first(), thread.count());
      if (leads) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          targets[r] = look_up_target<A>(p, indices[r], [&](int64_t c) { return x.at(r, c); });
        }
      }
      thread.sum(held, sums);
    }
    thread.merge_slices(sums);
    if (!leads) continue;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const FinishedRow<A> finished = finish_row<S>(p, loss, row + r, targets[r], sums[r]);
      totals.merge(store_row<S>(p, loss, row + r, targets[r], finished, sums[r]));
    }
  }
  finish_share<S>(p, shares, blockIdx.x, totals, scratch);
}

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelRegisters<kPlanes>))
    cross_entropy_backward_of_pixels(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss_, ClassSlices slices) {
  using A = opmath_t<S>;
  using Thread = PixelThread<S, kPlanes>;
  constexpr int kRows = Thread::kRows;
  const DeviceLoss<A> loss = without_options(loss_);
  const Thread thread(slices);
  const int64_t row = int64_t(blockIdx.x) * slices.pixels<S>() + thread.first_row();
  const bool is_there = row < p.rows;
  const PixelRows<const S> x{is_there ? logits_row<S>(p, row) : nullptr, p.input_class_stride};
  const PixelRows<S> grad_x{is_there ? grad_row<S>(p, row) : nullptr, p.grad_input_class_stride};
  typename Thread::Held held;
  PixelGradient<A> gradients[kRows];
  if (is_there) {
    int64_t indices[kRows];
    SavedRow<A> saved[kRows];
    A scales[kRows];
    if (thread.leads()) {
      loss_scales<S>(p, loss.loss_scale, row, scales);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        scales[r] = product(sample_weight<A>(p, row + r), scales[r]);
        indices[r] = p.target[row + r];
        saved[r] = saved_row<S>(p, row + r);
      }
    }
    held.load(x, thread.first(), thread.count());
    if (thread.leads()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto target = look_up_target<A>(p, indices[r], [&](int64_t c) { return x.at(r, c); });
        report_if_bad(p, loss.bad_target, row + r, target);
        gradients[r] =
            PixelGradient<A>(row_gradient<S, PlainForm>(p, loss, target, saved[r], scales[r]), target.x);
      }
    }
  }
  thread.share(gradients);
  if (!is_there) return;
  thread.write(held, gradients, grad_x);
}

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelRegisters<kPlanes>))
    cross_entropy_with_grad_of_pixels(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss_, ClassSlices slices,
                                      Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  using Thread = PixelThread<S, kPlanes>;
  constexpr int kRows = Thread::kRows;
  const DeviceLoss<A> loss = without_options(loss_);
  const Thread thread(slices);
  RowTotals totals;
  const int64_t begin = shares.begin(blockIdx.x);
  const int size = shares.size(blockIdx.x);
  p.backward.grad_output = nullptr;  // which the compiler shall know
  A scale[1];                        // the same for all: they are of one group
  loss_scales<S>(p.backward, loss.loss_scale, begin, scale);
  for (int i = 0; i < size; i += slices.pixels<S>()) {
    const int64_t row = begin + i + thread.first_row();
    const bool is_there = i + thread.first_row() < size;
    const bool leads = is_there && thread.leads();
    const PixelRows<const S> x{is_there ? logits_row<S>(p.forward, row) : nullptr, p.forward.input_class_stride};
    const PixelRows<S> grad_x{is_there ? grad_row<S>(p.backward, row) : nullptr, p.backward.grad_input_class_stride};
    typename Thread::Held held;
    typename Thread::Sums sums[kRows];
    RowTarget<A> targets[kRows];
    if (is_there) {
      int64_t indices[kRows];
      if (leads) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) indices[r] = p.forward.target[row + r];
      }
      held.load(x, thread.first(), thread.count());
      if (leads) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          targets[r] = look_up_target<A>(p.forward, indices[r], [&](int64_t c) { return x.at(r, c); });
        }
      }
      thread.sum(held, sums);
    }
    thread.merge_slices(sums);
    PixelGradient<A> gradients[kRows];
    if (leads) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const FinishedRow<A> finished = finish_row<S>(p.forward, loss, row + r, targets[r], sums[r]);
        totals.merge(store_row<S>(p.forward, loss, row + r, targets[r], finished, sums[r]));
        gradients[r] = PixelGradient<A>(
            row_gradient<S, PlainForm>(p.backward, loss, targets[r], finished.saved, product(sample_weight<A>(p.forward, row + r), scale[0])), targets[r].x);
      }
    }
    thread.share(gradients);
    if (!is_there) continue;
    thread.write(held, gradients, grad_x);
  }
  finish_share<S>(p.forward, shares, blockIdx.x, totals, scratch);
}

}  // namespace ce_ext::cuda
