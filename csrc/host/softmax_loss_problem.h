// What the problems of all losses of softmax have in common, after every check: raw pointers, sizes and strides.
// Torch-free: what the drivers of both backends get.
#pragma once

#include "host/dtype.h"
#include "host/reduced_loss.h"
#include "host/rows.h"
#include "losses/cross_entropy.h"

namespace ce_ext {

struct SoftmaxLossProblem {
  DType dtype;          // of input and its gradient
  bool loss_is_opmath;  // the dtype of loss and grad_output: opmath, or that of input
  int64_t rows;
  int64_t classes;
  RowDims row_dims;

  const void* input;
  RowStrides input_rows;
  int64_t input_class_stride;
  const void* weight;         // one a class, in opmath, or null for ones
  const void* sample_weight;  // one a row, in opmath, or null for ones
  CrossEntropyOptions options;
};

// What the forward pass writes. A problem is one of these besides a SoftmaxLossProblem.
struct LossForward : ReducedLoss {
  void* saved;      // what backward needs, in opmath, for every row; or null
  void* report;     // RowReport in opmath, one a row; or null
  int64_t* argmax;  // one a row; or null with `report`
};

// Likewise of the backward pass.
struct LossBackward {
  const void* saved;
  const void* grad_output;  // addressed by row, stride 0 where rows share it; null: `loss_scale` for all
  RowStrides grad_output_rows;
  double loss_scale;
  const void* denominator;  // opmath; addressed by row likewise; null unless the forward was kMean
  RowStrides denominator_rows;
  void* grad_input;  // may be `input`
  RowStrides grad_input_rows;
  int64_t grad_input_class_stride;
};

// The forms that forward kernels are compiled in: what options ask for, and in the last of them all of it.
struct PlainForm {
  static constexpr bool kLogitsChange = false, kReport = false;
  static constexpr Gaps kGaps = Gaps::kNone;
};
template <Gaps kGaps_>
struct GapsForm : PlainForm {
  static constexpr Gaps kGaps = kGaps_;
};
template <Gaps kGaps_>
struct FullForm {
  static constexpr bool kLogitsChange = true, kReport = true;
  static constexpr Gaps kGaps = kGaps_;
};

// Whether no option asks for more than the sum of exponentials.
template <class Form>
constexpr bool kIsPlain = Form::kGaps == Gaps::kNone && !Form::kLogitsChange && !Form::kReport;

// Calls f with a value of the form that the problem of a loss with weighted classes needs.
template <Gaps kGaps, class Problem, class F>
auto dispatch_form(const Problem& p, F f) {
  return p.report || p.options.logits.change() ? f(FullForm<kGaps>{}) : f(GapsForm<kGaps>{});
}

}  // namespace ce_ext
