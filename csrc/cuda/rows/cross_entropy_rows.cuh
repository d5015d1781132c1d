// What the CUDA kernels of cross entropy do with a row, however its logits are read: before they are, with what has
// been gathered of them, and for its gradient.
#pragma once

#include "cuda/device/bad_target.cuh"
#include "cuda/rows/row_sums.cuh"
#include "cuda/rows/softmax_loss_rows.cuh"
#include "host/cross_entropy_problem.h"

namespace ce_ext::cuda {

// Targets that are neither a class nor ignored are never used as an index: they are reported, their loss and gradient
// are NaN.
enum class TargetKind { kClass, kIgnored, kOutOfBounds };

// The loss with its constants, made on the host, where float64 costs nothing; but the sum of the class weights is known
// to the device alone.
template <class A>
struct DeviceLoss {
  CrossEntropy<A> on_host;
  Logits<A, true> logits;
  A loss_scale;         // where there is no grad_output
  const A* weight_sum;  // null where every class weighs 1
  BadTarget* bad_target;

  __device__ CrossEntropy<A> get() const {
    CrossEntropy<A> loss = on_host;
    if (weight_sum) loss.weight_sum = *weight_sum;
    return loss;
  }
};

// The target of a row, and what is known of its class.
template <class A>
struct RowTarget {
  int64_t index;
  TargetKind kind;
  A x = A(0);  // its logit, read before a gradient may overwrite it
  A weight = A(0);
};

__device__ __forceinline__ TargetKind kind_of(const CrossEntropyProblem& p, int64_t target) {
  if (target == p.ignore_index) return TargetKind::kIgnored;
  return target >= 0 && target < p.classes ? TargetKind::kClass : TargetKind::kOutOfBounds;
}

// `logit_of` gives the logit of a class of the row.
template <class A, class LogitOf>
__device__ __forceinline__ RowTarget<A> look_up_target(const CrossEntropyProblem& p, int64_t index,
                                                       const LogitOf& logit_of) {
  RowTarget<A> target{index, kind_of(p, index)};
  if (target.kind == TargetKind::kClass) {
    target.x = logit_of(index);
    target.weight = class_weight<A>(p, index);
  }
  return target;
}
template <class A, class LogitOf>
__device__ __forceinline__ RowTarget<A> load_target(const CrossEntropyProblem& p, int64_t row,
                                                    const LogitOf& logit_of) {
  return look_up_target<A>(p, p.target[row], logit_of);
}

// One thread of the row calls it.
template <class A>
__device__ __forceinline__ void report_if_bad(const CrossEntropyProblem& p, BadTarget* record, int64_t row,
                                              const RowTarget<A>& target) {
  if (target.kind == TargetKind::kOutOfBounds) report_bad_target(record, row, target.index, p.classes);
}

// Whether the logits of a row have to be read.
template <class Form, class A>
__device__ __forceinline__ bool is_wanted(const RowTarget<A>& target) {
  return Form::kReport || target.kind == TargetKind::kClass;
}

// Takes logits into the sums of their row.
template <class S, class Form>
struct AddLogits {
  using Value = opmath_t<S>;
  static constexpr bool kTakesNumbers = kIsPlain<Form>;
  static constexpr Value kFill = Value(-INFINITY);

  const CrossEntropyProblem& p;
  Logits<Value, Form::kLogitsChange> logits;
  int64_t begin;  // the first class of the part of the row

  __device__ AddLogits(const CrossEntropyProblem& p_, const DeviceLoss<Value>& loss, int64_t begin_ = 0)
      : p(p_), logits(logits_of<Form::kLogitsChange>(loss.logits)), begin(begin_) {}

  template <int kCount>
  __device__ __forceinline__ void operator()(RowSums<Value, Form>& sums, Value (&values)[kCount], int64_t c) const {
    Value weights[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) weights[i] = Value(1);
    if (Form::kGaps == Gaps::kNone || !p.weight) {  // the compiler knows what they are
      sums.add(logits, values, weights, begin + c);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) weights[i] = class_weight<Value>(p, begin + c + i);
      sums.add(logits, values, weights, begin + c);
    }
  }
  template <int kCount, int kPacks>
  __device__ __forceinline__ void operator()(RowSums<Value, Form>& sums,
                                             const Numbers<S, kCount> (&packs)[kPacks]) const {
    add_numbers(sums.softmax, packs);
  }
  template <int kCount>
  __device__ __forceinline__ void fought(RowSums<Value, Form>& sums, Value (&values)[kCount]) const {
    sums.softmax.template add_fought<1>(values);
  }

  static __device__ __forceinline__ auto& softmax(RowSums<Value, Form>& sums) { return sums.softmax; }
};

// A row whose logits have all been seen.
template <class A>
struct FinishedRow {
  SavedRow<A> saved;
  A loss;
  A target_log_prob;
};

template <class S, class Form>
__device__ __forceinline__ FinishedRow<opmath_t<S>> finish_row(const CrossEntropyProblem& p,
                                                               const DeviceLoss<opmath_t<S>>& device_loss, int64_t row,
                                                               const RowTarget<opmath_t<S>>& target,
                                                               const RowSums<opmath_t<S>, Form>& sums) {
  using A = opmath_t<S>;
  const CrossEntropy<A> loss = device_loss.get();
  const RowStats<A> stats = sums.softmax.finish();
  const A unknown = target.kind == TargetKind::kIgnored ? A(0) : A(NAN);
  FinishedRow<A> finished{loss.save(stats, sums.softmax.gap_sum), unknown, unknown};
  if (target.kind == TargetKind::kClass) {
    const A z_target = logits_of<Form::kLogitsChange>(device_loss.logits)(target.x);
    finished.target_log_prob = -negative_log_likelihood(stats, z_target);
    finished.loss = product(sample_weight<A>(p, row), loss.loss(finished.saved, z_target, target.weight));
  }
  return finished;
}

// What the mean counts a row as.
template <class A>
__device__ __forceinline__ A row_weight(const CrossEntropyProblem& p, int64_t row, const RowTarget<A>& target) {
  return target.kind == TargetKind::kClass ? sample_weight<A>(p, row) * target.weight : A(0);
}

// Writes what is kept and what is reported of a row, and returns what it adds to its group. One thread calls it.
template <class S, class Form>
__device__ __forceinline__ RowTotals store_row(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss,
                                               int64_t row, const RowTarget<opmath_t<S>>& target,
                                               const FinishedRow<opmath_t<S>>& finished,
                                               const RowSums<opmath_t<S>, Form>& sums) {
  using A = opmath_t<S>;
  report_if_bad(p, loss.bad_target, row, target);
  if (p.saved) static_cast<SavedRow<A>*>(p.saved)[row] = finished.saved;
  store_report(p, row, finished.saved.stats, sums, finished.target_log_prob);
  return store_row_loss<S>(p, row, finished.loss, row_weight(p, row, target));
}

// The gradient of a row, class by class.
template <class A, class Form>
struct RowGradient {
  int64_t target;
  TargetKind kind;
  const A* weight;  // of every class, or null for ones; only label smoothing asks
  CrossEntropyGradient<A, Form::kLogitsChange> gradient;

  __device__ __forceinline__ bool reads_logits() const { return kind == TargetKind::kClass; }

  // The logits of kCount classes from class c on become the gradients of classes that are not the target.
  template <int kCount>
  __device__ __forceinline__ void apply(int64_t c, A (&x)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (Form::kGaps == Gaps::kNone) {
        x[i] = gradient.at(x[i]);
      } else {
        x[i] = gradient.at(x[i], weight ? weight[c + i] : A(1));
      }
    }
  }
  __device__ __forceinline__ A at_target(A x) const { return gradient.at_target(x); }
};

// `scale` is row_scale, of rows that have a target.
template <class S, class Form>
__device__ __forceinline__ RowGradient<opmath_t<S>, Form> row_gradient(const CrossEntropyBackward& p,
                                                                       const DeviceLoss<opmath_t<S>>& loss,
                                                                       const RowTarget<opmath_t<S>>& target,
                                                                       const SavedRow<opmath_t<S>>& saved,
                                                                       opmath_t<S> scale) {
  using A = opmath_t<S>;
  const auto logits = logits_of<Form::kLogitsChange>(loss.logits);
  RowGradient<A, Form> result{target.index, target.kind, nullptr, {}};
  if (target.kind == TargetKind::kClass) {
    result.gradient = loss.get().gradient(saved, logits(target.x), target.weight, scale, logits);
    result.weight = static_cast<const A*>(p.weight);
  } else {  // the same for every class, whose logits are taken for 0
    const A of_each = target.kind == TargetKind::kIgnored ? A(0) : A(NAN);
    result.gradient = {RowStats<A>{A(0), A(0)}, of_each, A(0), A(0), A(0), logits};
  }
  return result;
}

template <class S, class Form>
__device__ __forceinline__ RowGradient<opmath_t<S>, Form> row_gradient(const CrossEntropyBackward& p,
                                                                       const DeviceLoss<opmath_t<S>>& loss, int64_t row,
                                                                       const RowTarget<opmath_t<S>>& target,
                                                                       const SavedRow<opmath_t<S>>& saved) {
  using A = opmath_t<S>;
  const A scale = target.kind == TargetKind::kClass ? row_scale<S>(p, loss.loss_scale, row) : A(0);
  return row_gradient<S, Form>(p, loss, target, saved, scale);
}

template <class S>
__device__ __forceinline__ S* grad_row(const CrossEntropyBackward& p, int64_t row) {
  return static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
}

template <class S>
__device__ __forceinline__ SavedRow<opmath_t<S>> saved_row(const CrossEntropyBackward& p, int64_t row) {
  return static_cast<const SavedRow<opmath_t<S>>*>(p.saved)[row];
}

}  // namespace ce_ext::cuda
