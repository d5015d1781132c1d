// The op that multiplies a gradient of the forward pass by the one from upstream.
#include <ATen/MemoryOverlap.h>
#include <torch/library.h>

#include "host/backends.h"
#include "host/checks.h"
#include "host/ops.h"
#include "host/row_layout.h"

namespace ce_ext {
namespace {

void scale_gradient(const at::Tensor& grad_input, const at::Tensor& grad_output, double loss_scale,
                    int64_t batch_dims) {
  ScaleGradient problem{};
  problem.dtype = check_input_dtype(grad_input);
  const at::ScalarType opmath = opmath_dtype(grad_input);
  TORCH_CHECK(grad_output.scalar_type() == grad_input.scalar_type() || grad_output.scalar_type() == opmath,
              "grad_output must have the dtype of grad_input, ", grad_input.scalar_type(),
              opmath == grad_input.scalar_type() ? "" : ", or Float", ", but got ", grad_output.scalar_type());
  check_same_device(grad_input, "grad_output", grad_output);
  check_aligned("grad_input", grad_input);
  check_aligned("grad_output", grad_output);
  const int64_t class_dim = check_class_dim("grad_input", grad_input, batch_dims);
  const c10::SymIntArrayRef batch = grad_input.sym_sizes().slice(0, batch_dims), got = grad_output.sym_sizes();
  c10::SymDimVector row_shape(grad_input.sym_sizes());
  row_shape.erase(row_shape.begin() + class_dim);
  TORCH_CHECK(are_same(got, batch) || are_same(got, row_shape), "grad_output must have shape ", batch, " or ",
              c10::SymIntArrayRef(row_shape), ", but got shape ", got);
  if (!has_data(grad_input)) return;
  at::assert_no_internal_overlap(grad_input);
  at::assert_no_overlap(grad_input, grad_output);

  problem.grad_output_is_opmath = grad_output.scalar_type() == opmath;
  problem.grad_output = grad_output.const_data_ptr();
  problem.loss_scale = loss_scale;
  problem.grad_input = grad_input.mutable_data_ptr();
  if (grad_output.dim() == 0 && grad_input.is_non_overlapping_and_dense()) {  // the same for all that is in memory
    problem.rows = 1;
    problem.classes = grad_input.numel();
    problem.row_dims.sizes[problem.row_dims.ndim++] = 1;
    problem.class_stride = 1;
  } else {
    problem.classes = grad_input.size(class_dim);
    problem.rows = problem.classes > 0 ? grad_input.numel() / problem.classes : 0;
    problem.class_stride = grad_input.stride(class_dim);
    problem.row_dims = lay_out_rows(
        {{grad_input, class_dim, problem.grad_input_rows}, {grad_output, kNoClassDim, problem.grad_output_rows}});
  }
  run(grad_input, problem);
  grad_input.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

void register_scale_gradient(torch::Library& m) { m.impl("scale_gradient", &scale_gradient); }

}  // namespace ce_ext
