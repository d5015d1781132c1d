// A cross entropy problem after every check: raw pointers, sizes and strides. Torch-free: what the drivers of
// both backends get.
#pragma once

#include "host/dtype.h"
#include "host/rows.h"
#include "losses/cross_entropy.h"
#include "losses/reduction.h"

namespace ce_ext {

struct CrossEntropyProblem {
  DType dtype;             // of input and its gradient
  bool loss_is_opmath;     // the dtype of loss and grad_output: opmath, or that of input
  bool input_is_log_prob;  // log-probabilities, no logits: the statistics of every row are 0, and its options are off
  int64_t rows;
  int64_t classes;
  RowDims row_dims;

  const void* input;
  RowStrides input_rows;
  int64_t input_class_stride;
  const int64_t* target;      // contiguous, one a row
  const void* weight;         // one a class, in opmath, or null for ones
  const void* sample_weight;  // one a row, in opmath, or null for ones
  int64_t ignore_index;
  CrossEntropyOptions options;
};

struct CrossEntropyForward : CrossEntropyProblem {
  Reduction reduction;
  bool zero_if_empty;
  int64_t groups;     // the rows are this many equal runs, and each is reduced to a loss of its own
  void* loss;         // one a row for kNone, else one a group
  void* saved;        // SavedRow in opmath, one a row; or null
  void* denominator;  // in opmath, one a group; kMean only
  void* report;       // RowReport in opmath, one a row; or null
  int64_t* argmax;    // one a row; or null with `report`
};

struct CrossEntropyBackward : CrossEntropyProblem {
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

// Both at once, of rows that are read from memory only once.
struct CrossEntropyWithGrad {
  CrossEntropyForward forward;
  CrossEntropyBackward backward;  // `saved` and `grad_output` are null
};

// The forms that forward kernels are compiled in: what options ask for, and in the last of them all of it.
struct PlainForm {
  static constexpr bool kGaps = false, kLogitsChange = false, kReport = false;
};
struct SmoothedForm {
  static constexpr bool kGaps = true, kLogitsChange = false, kReport = false;
};
struct FullForm {
  static constexpr bool kGaps = true, kLogitsChange = true, kReport = true;
};

// Calls f with a value of the form that the problem needs.
template <class F>
auto dispatch_form(const CrossEntropyForward& p, F f) {
  if (p.report || p.options.logits.change()) return f(FullForm{});
  return p.options.label_smoothing > 0 ? f(SmoothedForm{}) : f(PlainForm{});
}

}  // namespace ce_ext
