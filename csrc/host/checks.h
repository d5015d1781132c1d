// Argument checks that losses share. Every message names the argument and shows the offending values; the
// exception types are those of torch.nn.functional. They also hold for tensors without data, whose sizes may be symbols
// of a compiler.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>
#include <string>

#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/dtype.h"

namespace ce_ext {

// Whether there is anything to compute. Tensors of the device meta, and those of compilers, have shapes alone.
bool has_data(const at::Tensor& tensor);

// None if it is undefined.
std::optional<at::Tensor> if_defined(const at::Tensor& tensor);

bool are_same(c10::SymIntArrayRef a, c10::SymIntArrayRef b);

// The DType of floating-point logits; NotImplementedError for any other dtype.
DType check_input_dtype(const at::Tensor& input);

// The dtype that values of `input` are computed in.
at::ScalarType opmath_dtype(const at::Tensor& input);

// The dimension of the classes of logits: a sample behind the batch dimensions is (C), or (N, C, d1, ...).
int64_t check_class_dim(const char* name, const at::Tensor& logits, int64_t batch_dims);

// Kernels read and write numbers at multiples of their size, where torch puts what it allocates. Memory of others may
// begin anywhere, and an access elsewhere is undefined, or ends a CUDA context.
void check_aligned(const char* name, const at::Tensor& tensor);

void check_same_device(const at::Tensor& input, const char* name, const at::Tensor& tensor);

// `target` must hold one class index for every row of `input`, of which there are so many.
void check_class_indices(const at::Tensor& input, const at::Tensor& target, c10::SymIntArrayRef row_shape);

// Such a target as int64, contiguous: what that cannot hold becomes a number that is no class and not ignored.
at::Tensor class_indices(const at::Tensor& target, std::optional<int64_t> ignore_index);

// `target` must hold one probability for every entry of `input`, in its dtype or in `opmath`, on its device.
void check_class_probabilities(const at::Tensor& input, const at::Tensor& target, at::ScalarType opmath);

// Factors such as class weights must be a tensor of this shape, in the dtype of `input` or in `opmath`, on its device.
void check_factors(const char* name, const at::Tensor& factors, c10::SymIntArrayRef shape, const char* one_of,
                   const at::Tensor& input, at::ScalarType opmath);

// What a backward op gets from its forward must have the shape and dtype that the forward gave it.
void check_from_forward(const char* name, const at::Tensor& tensor, c10::SymIntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input);

void check_options(const CrossEntropyOptions& options);
void check_options(const BinaryCrossEntropyOptions& options);

// The dtype of the loss: that of the input by default, or the one it is computed in.
at::ScalarType check_out_dtype(std::optional<at::ScalarType> out_dtype, at::ScalarType input, at::ScalarType opmath);

Reduction check_reduction(int64_t reduction);

// What the mean divides by: `divisor`, or without one what it counts.
MeanDivisor make_mean_divisor(bool zero_if_empty, std::optional<double> divisor);

// The number at this place of a tensor, as text: x[1, 0] = 7, say.
std::string describe_number(const char* name, const at::Tensor& tensor, at::IntArrayRef place);

// Raises IndexError for the target of row `row`, which no kernel has read or written for.
[[noreturn]] void throw_bad_target(const at::Tensor& target, int64_t row, int64_t classes, int64_t ignore_index);

}  // namespace ce_ext
