// The ops of ce_ext, all of them, and the Python module that holds them. Kernels are in libraries of their own,
// one for each instruction set of the CPU and one for CUDA, which `load_backend` loads.
#include <pybind11/pybind11.h>
#include <torch/library.h>
#include <torch/version.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "host/backends.h"
#include "python/autograd.h"
#include "python/calls.h"

// What the three ops of cross entropy have in common. reduction: 0 none, 1 mean, 2 sum. The first `batch_dims`
// dimensions of input and target are a batch of samples, each reduced to a loss of its own; a sample is (C) or (N, C,
// d1, ...). `divisor` is what the mean divides by in place of what it counts.
#define CROSS_ENTROPY_TENSORS "Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, "
#define CROSS_ENTROPY_SETTINGS                                                                                \
  "int reduction, SymInt ignore_index, float label_smoothing, float gamma, float z_loss, float logit_scale, " \
  "float softcap, bool input_is_log_prob, bool zero_if_empty, float? divisor, ScalarType? out_dtype, int batch_dims"
#define SOFT_CROSS_ENTROPY_SETTINGS                                                                          \
  "int reduction, float label_smoothing, float gamma, float z_loss, float logit_scale, float softcap, bool " \
  "zero_if_empty, float? divisor, ScalarType? out_dtype, bool needs_input, bool needs_target, int batch_dims"
#define BINARY_CROSS_ENTROPY_TENSORS \
  "Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, Tensor? class_alpha, "
#define BINARY_CROSS_ENTROPY_SETTINGS                                                                          \
  "int reduction, bool input_is_probability, float gamma, float alpha, float? gamma_neg, float margin, "       \
  "float label_smoothing, SymInt? ignore_index, bool ignore_nan, bool zero_if_empty, float? divisor, "         \
  "ScalarType? out_dtype, bool needs_input, bool needs_target, bool needs_weight, bool needs_pos_weight, int " \
  "batch_dims"

TORCH_LIBRARY(ce_ext, m) {
  // Returns the loss; what the backward pass needs of every row, if it is to be kept; the divisor, if it is a mean;
  // and, if asked for, lse, entropy and the target's log-probability of every row, and its largest class. What is not
  // asked for, or is nothing, is None: small problems have no time for empty tensors.
  m.def("cross_entropy_forward(" CROSS_ENTROPY_TENSORS CROSS_ENTROPY_SETTINGS
        ", bool keep_stats, bool report) -> (Tensor loss, Tensor? stats, Tensor? denominator, Tensor? report, "
        "Tensor? argmax)",
        {at::Tag::pt2_compliant_tag});
  m.def("cross_entropy_backward(Tensor grad_output, " CROSS_ENTROPY_TENSORS
        "Tensor? stats, Tensor? denominator, " CROSS_ENTROPY_SETTINGS ") -> Tensor grad_input",
        {at::Tag::pt2_compliant_tag});
  // The loss, at once with its gradient times `loss_scale`; `grad_input`, where that goes, may be `input`. What is not
  // asked for is undefined, though the schema does not say so: torch functionalizes no op that writes to its arguments
  // and may return None.
  m.def("cross_entropy_with_grad(Tensor(a!) grad_input, " CROSS_ENTROPY_TENSORS CROSS_ENTROPY_SETTINGS
        ", bool report, float loss_scale) -> (Tensor loss, Tensor report, Tensor argmax)",
        {at::Tag::pt2_compliant_tag});
  // Multiplies such a gradient by grad_output / loss_scale. grad_output has one number for each sample of the batch, or
  // for each row; where it is loss_scale, nothing is done, and on CUDA without waiting to know.
  m.def("scale_gradient(Tensor(a!) grad_input, Tensor grad_output, float loss_scale, int batch_dims) -> ()",
        {at::Tag::pt2_compliant_tag});
  // The same for class probabilities, a floating target of the shape of input. Backward gives the gradients that
  // `needs_input` and `needs_target` ask for; the others are undefined.
  m.def("soft_cross_entropy_forward(" CROSS_ENTROPY_TENSORS SOFT_CROSS_ENTROPY_SETTINGS
        ", bool keep_stats, bool report) -> (Tensor loss, Tensor? stats, Tensor? denominator, Tensor? report, "
        "Tensor? argmax)",
        {at::Tag::pt2_compliant_tag});
  m.def("soft_cross_entropy_backward(Tensor grad_output, " CROSS_ENTROPY_TENSORS
        "Tensor stats, Tensor? denominator, " SOFT_CROSS_ENTROPY_SETTINGS
        ") -> (Tensor grad_input, Tensor grad_target)",
        {at::Tag::pt2_compliant_tag});
  // Along any one dimension. `dtype` of the output is that of the input, or float32 for a half input. The gradient has
  // the input's dtype.
  m.def("log_softmax_forward(Tensor input, int dim, ScalarType? dtype) -> Tensor output", {at::Tag::pt2_compliant_tag});
  m.def("log_softmax_backward(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor grad_input",
        {at::Tag::pt2_compliant_tag});
  // Binary cross entropy of probabilities or logits; the asymmetric loss, which it is where gamma_neg is given; and the
  // sigmoid focal loss, which it is where gamma, alpha or class_alpha is. The target has the shape of input, or holds
  // class indices. weight, pos_weight and class_alpha are broadcast.
  m.def("binary_cross_entropy_forward(" BINARY_CROSS_ENTROPY_TENSORS BINARY_CROSS_ENTROPY_SETTINGS
        ") -> (Tensor loss, Tensor? denominator)",
        {at::Tag::pt2_compliant_tag});
  m.def("binary_cross_entropy_backward(Tensor grad_output, " BINARY_CROSS_ENTROPY_TENSORS
        "Tensor? denominator, " BINARY_CROSS_ENTROPY_SETTINGS
        ") -> (Tensor grad_input, Tensor grad_target, Tensor grad_weight, Tensor grad_pos_weight)",
        {at::Tag::pt2_compliant_tag});
  // Of CUDA alone, whose kernels find targets out of bounds when nobody waits for them: waits, and raises the first.
  m.def("check_targets(Device? device) -> ()");
  // Of CUDA alone, for benchmarks: which teams of threads share rows, entry by entry, and others in their place. See
  // csrc/cuda/rows/policy.cuh.
  m.def("cuda_policy() -> str");
  m.def("override_cuda_policy(str overrides) -> ()");
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "How this build of ce_ext was made, and what Python needs to make its ops differentiable.";
  m.def("load_backend", &ce_ext::load_backend, pybind11::arg("device_type"), pybind11::arg("path"));
  ce_ext::bind_autograd(m);
  ce_ext::bind_quick_call(m);
  m.attr("version") = CE_EXT_VERSION;
  m.attr("torch_version") = TORCH_VERSION;
  m.attr("compiler") = __VERSION__;
  m.attr("cpu_isas") = CE_EXT_CPU_ISAS;
  m.attr("cuda_architectures") = CE_EXT_CUDA_ARCHS;
#if defined(_OPENMP)
  m.attr("openmp") = _OPENMP;
#else
  m.attr("openmp") = pybind11::none();
#endif
}
