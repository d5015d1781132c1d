// A binary cross entropy problem after every check: raw pointers, sizes and strides. Torch-free: what the drivers of
// both backends get.
#pragma once

#include <cstdint>
#include <type_traits>

#include "host/dtype.h"
#include "host/reduced_loss.h"
#include "host/rows.h"
#include "losses/binary_cross_entropy.h"

namespace ce_ext {

// The type of the numbers of an operand: that of the input, or another.
enum class NumberType { kInput, kOpMath, kUInt8, kInt8, kInt16, kInt32, kInt64 };

// A tensor that has a number for every element of the input, or one for several of them, with strides of 0.
struct Operand {
  const void* data;  // null where there is none, which is as if all its numbers were 1
  NumberType type;
  RowStrides strides;

  bool is_one_number(const RowDims& dims) const {
    if (!data) return true;
    for (int d = 0; d < dims.ndim; ++d) {
      if (strides.strides[d] != 0) return false;
    }
    return true;
  }
};

struct BinaryCrossEntropyProblem {
  DType dtype;  // of input and its gradient
  int64_t elements;
  RowDims dims;  // of all elements, in the order in which they are worked on

  Operand input;
  Operand target;
  Operand weight;
  Operand pos_weight;
  Operand class_alpha;  // in place of options.alpha
  // The loss of an element is multiplied by its weight and its grad_output, and divided by its divisor.
  Operand grad_output;
  Operand divisor;

  // The target is the class of a row: that element is 1, others are 0, all of them for the target `classes`. Its offset
  // is the number of the row.
  bool target_is_class;
  int64_t classes;
  RowStrides class_numbers;  // the offset of an element is the number of its class

  bool has_ignored;
  int64_t ignore_index;
  bool ignores_nan;  // targets that are NaN; never of integers
  BinaryCrossEntropyOptions options;
};

struct BinaryCrossEntropyForward : BinaryCrossEntropyProblem, ReducedLoss {
  bool loss_is_opmath;      // the dtype of the loss: opmath, or that of input
  RowStrides loss_strides;  // kNone only
};

struct BinaryCrossEntropyBackward : BinaryCrossEntropyProblem {  // either gradient may be null
  void* grad_input;
  RowStrides grad_input_strides;
  void* grad_target;
  RowStrides grad_target_strides;
  bool grad_target_is_opmath;
};

// Calls f with a value of the type of the numbers; S is that of the input.
template <class S, class F>
HOST_DEVICE auto dispatch(NumberType type, F f) {
  switch (type) {
    case NumberType::kOpMath:
      return f(opmath_t<S>());
    case NumberType::kUInt8:
      return f(uint8_t());
    case NumberType::kInt8:
      return f(int8_t());
    case NumberType::kInt16:
      return f(int16_t());
    case NumberType::kInt32:
      return f(int32_t());
    case NumberType::kInt64:
      return f(int64_t());
    default:
      return f(S());
  }
}

// Calls f with a constant that says what the input is.
template <class F>
auto dispatch_input(const BinaryCrossEntropyProblem& p, F f) {
  switch (p.options.input) {
    case BinaryInput::kProbability:
      return f(std::integral_constant<BinaryInput, BinaryInput::kProbability>());
    case BinaryInput::kFocalLogit:
      return f(std::integral_constant<BinaryInput, BinaryInput::kFocalLogit>());
    case BinaryInput::kAsymmetricLogit:
      return f(std::integral_constant<BinaryInput, BinaryInput::kAsymmetricLogit>());
    default:
      return f(std::integral_constant<BinaryInput, BinaryInput::kLogit>());
  }
}

}  // namespace ce_ext
