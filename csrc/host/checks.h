// Argument checks that losses share. Every message names the argument and shows the offending values; the
// exception types are those of torch.nn.functional.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/dtype.h"

namespace ce_ext {

// The DType of floating-point logits; NotImplementedError for any other dtype.
DType check_input_dtype(const at::Tensor& input);

// The dtype that values of `input` are computed in.
at::ScalarType opmath_dtype(const at::Tensor& input);

// The dimension of the classes of logits: a sample behind the batch dimensions is (C), or (N, C, d1, ...).
int64_t check_class_dim(const char* name, const at::Tensor& logits, int64_t batch_dims);

void check_same_device(const at::Tensor& input, const char* name, const at::Tensor& tensor);

// `target` must hold one class index for every row of `input`, of which there are so many.
void check_class_indices(const at::Tensor& input, const at::Tensor& target, at::IntArrayRef row_shape);

// `target` must hold one probability for every entry of `input`, in its dtype or in `opmath`, on its device.
void check_class_probabilities(const at::Tensor& input, const at::Tensor& target, at::ScalarType opmath);

// Factors such as class weights must be a tensor of this shape, in the dtype of `input` or in `opmath`, on its device.
void check_factors(const char* name, const at::Tensor& factors, at::IntArrayRef shape, const char* one_of,
                   const at::Tensor& input, at::ScalarType opmath);

// What a backward op gets from its forward must have the shape and dtype that the forward gave it.
void check_from_forward(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input);

void check_options(const CrossEntropyOptions& options);
void check_options(const BinaryCrossEntropyOptions& options);

// The dtype of the loss: that of the input by default, or the one it is computed in.
at::ScalarType check_out_dtype(std::optional<at::ScalarType> out_dtype, at::ScalarType input, at::ScalarType opmath);

Reduction check_reduction(int64_t reduction);

// Raises IndexError for the target of row `row`, which no kernel has read or written for.
[[noreturn]] void throw_bad_target(const at::Tensor& target, int64_t row, int64_t classes, int64_t ignore_index);

}  // namespace ce_ext
