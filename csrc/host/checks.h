// Argument checks that losses share. Every message names the argument and shows the offending values; the
// exception types are those of torch.nn.functional.
#pragma once

#include <ATen/core/Tensor.h>

#include "host/cross_entropy_problem.h"
#include "host/dtype.h"

namespace ce_ext {

// The DType of floating-point logits; NotImplementedError for any other dtype.
DType check_input_dtype(const at::Tensor& input);

// `target` must hold one class index for every row of `input`, whose classes are dimension `class_dim`.
void check_class_indices(const at::Tensor& input, const at::Tensor& target, int64_t class_dim);

// `weight` must hold one number a class, in the dtype and on the device of `input`.
void check_class_weight(const at::Tensor& input, const at::Tensor& weight, int64_t classes);

// What a backward op gets from its forward must have the shape and dtype that the forward gave it.
void check_from_forward(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input);

void check_label_smoothing(double label_smoothing);

Reduction check_reduction(int64_t reduction);

// Raises IndexError for the target of row `row`, which no kernel has read or written for.
[[noreturn]] void throw_bad_target(const at::Tensor& target, int64_t row, int64_t classes, int64_t ignore_index);

}  // namespace ce_ext
