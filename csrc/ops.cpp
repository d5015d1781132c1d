// The ops of ce_ext, all of them, and the Python module that holds them. Kernels are in libraries of their own,
// one for each instruction set of the CPU and one for CUDA, which register themselves when they are loaded.
#include <pybind11/pybind11.h>
#include <torch/library.h>
#include <torch/version.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "python/autograd.h"
#include "python/quick_call.h"

TORCH_LIBRARY(ce_ext, m) {
  // reduction: 0 none, 1 mean, 2 sum. The first `batch_dims` dimensions of input and target are a batch of samples,
  // each reduced to a loss of its own; a sample is (C) or (N, C, d1, ...).
  // Returns the loss, the max and the log-sum-exp above it of every row, and the divisor of the mean.
  m.def(
      "cross_entropy_forward(Tensor input, Tensor target, Tensor? weight, int reduction, int ignore_index, "
      "float label_smoothing, int batch_dims) -> (Tensor loss, Tensor stats, Tensor denominator)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "cross_entropy_backward(Tensor grad_output, Tensor input, Tensor target, Tensor? weight, Tensor stats, "
      "Tensor denominator, int reduction, int ignore_index, float label_smoothing, int batch_dims) -> Tensor "
      "grad_input",
      {at::Tag::pt2_compliant_tag});
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "How this build of ce_ext was made, and what Python needs to make its ops differentiable.";
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
