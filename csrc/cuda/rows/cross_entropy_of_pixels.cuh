// The kernels of cross entropy for rows that lie side by side, as pixels of images do, where no option changes more
// than what a row is multiplied by. A plane is what the pixels have of a class. A thread has a word of each: one pixel,
// or two of halves, and all of its planes are on their way at the same time. Where they are too many for it, warps of
// the block that have the same pixels share them: each has a slice of the classes.
#pragma once

#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/thread_rows.cuh"

namespace ce_ext::cuda {

template <class Data>
using PixelRows = StridedRows<Data, kPixelsOfThread<std::remove_const_t<Data>>>;

// How a block shares the classes of its pixels.
struct ClassSlices {
  int count;
  int size;       // of the smaller ones
  int larger;     // so many, the first, have a class more
  int lane_bits;  // threads with the same slice, each of other pixels, are a power of two

  explicit ClassSlices(int64_t classes)
      : count(int(divide_up(classes, kMaxPlanes))), size(int(classes) / count), larger(int(classes) % count) {
    for (lane_bits = 5; (count << (lane_bits + 1)) <= kPixelThreads;) ++lane_bits;
  }

  __host__ __device__ int lanes() const { return 1 << lane_bits; }
  int threads() const { return count * lanes(); }
  int planes() const { return int(divide_up(size + (larger > 0), kPlanesStep)) * kPlanesStep; }
  template <class S>
  __host__ __device__ int pixels() const {
    return lanes() * kPixelsOfThread<S>;
  }
};

// What a thread holds of its pixels. Of kPlanes planes, all but the last kPlanesStep are sure to be there.
template <class S, int kPlanes>
struct HeldPlanes {
  static constexpr int kRows = kPixelsOfThread<S>;
  using A = opmath_t<S>;
  using Plane = Numbers<S, kRows>;

  Plane planes[kPlanes];

  static __device__ __forceinline__ bool is_there(int i, int count) { return i < kPlanes - kPlanesStep || i < count; }

  __device__ __forceinline__ void load(PixelRows<const S> x, int64_t first, int count) {
    x.data += first * x.stride;
#pragma unroll
    for (int i = 0; i < kPlanes; ++i, x.data += x.stride) {
      planes[i] = is_there(i, count) ? x.numbers(0) : filled<S, kRows>(A(-INFINITY));
    }
  }

  // What they add up to, row by row. A plane plays against the best before it, so that one of the best alone never
  // loses; what the best come to is known beforehand, so that the planes stay as they are.
  __device__ __forceinline__ void sum(RowSums<A, PlainForm> (&sums)[kRows]) const {
    auto champion = planes[0].stored[0];
#pragma unroll
    for (int i = 1; i < kPlanes; ++i) champion = maximum(champion, planes[i].stored[0]);
    A max[kRows];
    convert(Plane{champion}, max);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r].softmax.max = max[r];
    champion = planes[0].stored[0];
#pragma unroll
    for (int first = 0; first < kPlanes; first += kPlanesStep) {
      SoftmaxSums<A, Gaps::kNone> part[kRows];  // a long sum of terms that are all alike would round each the same way
#pragma unroll
      for (int r = 0; r < kRows; ++r) part[r].max = max[r];
#pragma unroll
      for (int i = first > 0 ? first : 1; i < first + kPlanesStep; ++i) {
        const Plane loser{match(champion, planes[i].stored[0])};
        A values[kRows];
        convert(loser, values);
#pragma unroll
        for (int r = 0; r < kRows; ++r) part[r].add_loser(values[r]);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r].softmax.add_sums(part[r]);
    }
  }
};

// A gradient as threads tell each other. Where the logits are not read, that of the target is that of every class.
template <class A>
struct PixelGradient {
  RowStats<A> stats;
  A factor;
  A at_target;
  int target;
  bool reads_logits;

  PixelGradient() = default;
  __device__ __forceinline__ PixelGradient(const RowGradient<A, PlainForm>& row, A x_target)
      : stats(row.gradient.stats),
        factor(row.gradient.hard + row.gradient.soft),
        at_target(row.reads_logits() ? row.at_target(x_target) : factor),
        target(int(row.target)),
        reads_logits(row.reads_logits()) {}

  __device__ __forceinline__ A at(A x) const {
    return CrossEntropyGradient<A, false>{stats, factor, A(0), A(0), A(0), {}}.at(x);
  }
};

// What a thread of a block has to do.
template <class S, int kPlanes>
class PixelThread {
 public:
  static constexpr int kRows = kPixelsOfThread<S>;
  using A = opmath_t<S>;
  using Sums = RowSums<A, PlainForm>;
  using Held = HeldPlanes<S, kPlanes>;

  __device__ __forceinline__ explicit PixelThread(const ClassSlices& slices)
      : slices_(slices), slice_(int(threadIdx.x) >> slices.lane_bits), lane_(int(threadIdx.x) & (slices.lanes() - 1)) {}

  // The first of its rows, among those of the block.
  __device__ __forceinline__ int first_row() const { return lane_ * kRows; }
  // Of the threads that have the same rows, the first knows their targets.
  __device__ __forceinline__ bool leads() const { return slice_ == 0; }

  // Its classes.
  __device__ __forceinline__ int first() const {
    return slice_ * slices_.size + (slice_ < slices_.larger ? slice_ : slices_.larger);
  }
  __device__ __forceinline__ int count() const { return slices_.size + (slice_ < slices_.larger); }

  // Holds its planes of the rows from `row` on, and adds them up. Leaders look up the targets.
  __device__ __forceinline__ void read(const CrossEntropyForward& p, int64_t row, Held& held, Sums (&sums)[kRows],
                                       RowTarget<A> (&targets)[kRows]) const {
    const PixelRows<const S> x{logits_row<S>(p, row), p.input_class_stride};
    held.load(x, first(), count());
    if (leads()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        targets[r] = load_target<A>(p, row + r, [&](int64_t c) { return x.at(r, c); });
      }
    }
    held.sum(sums);
  }

  // What leaders have becomes that of all slices. All threads of the block call it.
  __device__ __forceinline__ void merge_slices(Sums (&sums)[kRows]) const {
    struct Part {
      A max, exp_sum;
    };
    SHARED_ARRAY(Part, parts, kPixelThreads * kRows);
    if (slices_.count == 1) return;
    Part* own = parts + int(threadIdx.x) * kRows;
#pragma unroll
    for (int r = 0; r < kRows; ++r) own[r] = {sums[r].softmax.max, sums[r].softmax.exp_sum};
    __syncthreads();
    if (leads()) {
      for (int slice = 1; slice < slices_.count; ++slice) {
        own += slices_.lanes() * kRows;
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r].softmax.merge({own[r].max, own[r].exp_sum});
      }
    }
    __syncthreads();  // before the next call writes them
  }

  // What leaders have, for all. All threads of the block call it, once after every call of merge_slices.
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
  }

  // Writes the gradient, maybe over the logits.
  __device__ __forceinline__ void write(const Held& held, const PixelGradient<A> (&gradients)[kRows],
                                        PixelRows<S> grad_x) const {
    grad_x.data += first() * grad_x.stride;
    int targets[kRows];  // among the planes
#pragma unroll
    for (int r = 0; r < kRows; ++r) targets[r] = gradients[r].target - first();
#pragma unroll
    for (int i = 0; i < kPlanes; ++i, grad_x.data += grad_x.stride) {
      A values[kRows];
      convert(held.planes[i], values);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const A value = gradients[r].at(values[r]);
        values[r] = targets[r] == i || !gradients[r].reads_logits ? gradients[r].at_target : value;
      }
      if (Held::is_there(i, count())) grad_x.store(0, values);
    }
  }

 private:
  const ClassSlices& slices_;
  int slice_;
  int lane_;
};

// The compiler shall know, too, that there are no options.
template <class A>
__device__ __forceinline__ DeviceLoss<A> without_options(DeviceLoss<A> loss) {
  loss.on_host.is_smoothed = loss.on_host.is_focal = loss.on_host.has_z_loss = false;
  loss.weight_sum = nullptr;
  return loss;
}

template <int kPlanes>
constexpr int kPixelRegisters = kPlanes > 16 ? 80 : 64;
template <int kPlanes>
constexpr int kPixelWithGradRegisters = kPlanes > 8 ? 128 : 80;

// The loss of the pixels of the block's share. All threads call use(row, is_there, held, targets, finished) for the
// rows from `row` on, if they are there; of what is finished, leaders know.
template <class S, int kPlanes, class Use>
__device__ __forceinline__ void pixels_forward(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss,
                                               const PixelThread<S, kPlanes>& thread, const ClassSlices& slices,
                                               const Shares& shares, RowTotals* of_shares, const Use& use) {
  using A = opmath_t<S>;
  constexpr int kRows = kPixelsOfThread<S>;
  RowTotals totals;
  const int64_t begin = shares.begin(blockIdx.x);
  const int size = shares.size(blockIdx.x);
  for (int i = 0; i < size; i += slices.pixels<S>()) {
    const int64_t row = begin + i + thread.first_row();
    const bool is_there = i + thread.first_row() < size;
    HeldPlanes<S, kPlanes> held;
    RowSums<A, PlainForm> sums[kRows];
    RowTarget<A> targets[kRows];
    FinishedRow<A> finished[kRows];
    if (is_there) thread.read(p, row, held, sums, targets);
    thread.merge_slices(sums);
    if (is_there && thread.leads()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        finished[r] = finish_row<S>(p, loss, row + r, targets[r], sums[r]);
        totals.merge(store_row<S>(p, loss, row + r, targets[r], finished[r], sums[r]));
      }
    }
    use(row, is_there, held, targets, finished);
  }
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelRegisters<kPlanes>))
    cross_entropy_forward_of_pixels(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, ClassSlices slices,
                                    Shares shares, RowTotals* of_shares) {
  const PixelThread<S, kPlanes> thread(slices);
  pixels_forward<S>(p, without_options(loss), thread, slices, shares, of_shares, [](const auto&...) {});
}

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelRegisters<kPlanes>))
    cross_entropy_backward_of_pixels(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> any_loss, ClassSlices slices) {
  using A = opmath_t<S>;
  constexpr int kRows = kPixelsOfThread<S>;
  const DeviceLoss<A> loss = without_options(any_loss);
  const PixelThread<S, kPlanes> thread(slices);
  const int64_t row = int64_t(blockIdx.x) * slices.pixels<S>() + thread.first_row();
  const bool is_there = row < p.rows;
  HeldPlanes<S, kPlanes> held;
  PixelGradient<A> gradients[kRows];
  if (is_there) {
    const PixelRows<const S> x{logits_row<S>(p, row), p.input_class_stride};
    held.load(x, thread.first(), thread.count());
    if (thread.leads()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto target = load_target<A>(p, row + r, [&](int64_t c) { return x.at(r, c); });
        report_if_bad(p, loss.bad_target, row + r, target);
        gradients[r] = {row_gradient<S, PlainForm>(p, loss, row + r, target, saved_row<S>(p, row + r)), target.x};
      }
    }
  }
  thread.share(gradients);
  if (is_there) thread.write(held, gradients, {grad_row<S>(p, row), p.grad_input_class_stride});
}

template <class S, int kPlanes>
__global__ void __launch_bounds__(kPixelThreads, resident_blocks(kPixelThreads, kPixelWithGradRegisters<kPlanes>))
    cross_entropy_with_grad_of_pixels(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> any_loss, ClassSlices slices,
                                      Shares shares, RowTotals* of_shares) {
  using A = opmath_t<S>;
  constexpr int kRows = kPixelsOfThread<S>;
  const DeviceLoss<A> loss = without_options(any_loss);
  const PixelThread<S, kPlanes> thread(slices);
  const A scale = share_scale<S>(p.backward, loss.loss_scale, shares);
  pixels_forward<S>(
      p.forward, loss, thread, slices, shares, of_shares,
      [&](int64_t row, bool is_there, const HeldPlanes<S, kPlanes>& held, const RowTarget<A>(&targets)[kRows],
          const FinishedRow<A>(&finished)[kRows]) {
        PixelGradient<A> gradients[kRows];
        if (is_there && thread.leads()) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const A scale_of_row = product(sample_weight<A>(p.forward, row + r), scale);
            gradients[r] = {row_gradient<S, PlainForm>(p.backward, loss, targets[r], finished[r].saved, scale_of_row),
                            targets[r].x};
          }
        }
        thread.share(gradients);
        if (is_there) {
          thread.write(held, gradients, {grad_row<S>(p.backward, row), p.backward.grad_input_class_stride});
        }
      });
}

}  // namespace ce_ext::cuda
