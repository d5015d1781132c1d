#include <ATen/Parallel.h>

#include "cpu/backend.h"
#include "cpu/lanes.h"

namespace ce_ext::cpu {
namespace {

// Numbers that are enough for a thread.
constexpr int64_t kGrain = 32768;

template <class S>
void scale(S* grad, int64_t count, int64_t stride, opmath_t<S> factor) {
  using A = opmath_t<S>;
  using Vec = Lanes<A>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + Vec::kSize <= count; i += Vec::kSize) (Vec::load(grad + i) * Vec(factor)).store(grad + i);
  }
  for (; i < count; ++i) grad[i * stride] = static_cast<S>(static_cast<A>(grad[i * stride]) * factor);
}

template <class S>
void scale_gradient(const ScaleGradient& p) {
  using A = opmath_t<S>;
  // The numbers of all rows, one row after another: a thread may begin and end within one.
  at::parallel_for(0, p.rows * p.classes, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / p.classes;
      const int64_t c = begin - row * p.classes;
      const int64_t count = std::min(end - begin, p.classes - c);
      const int64_t i = p.grad_output_rows.offset(p.row_dims, row);
      const A grad_output = p.grad_output_is_opmath ? static_cast<const A*>(p.grad_output)[i]
                                                    : static_cast<A>(static_cast<const S*>(p.grad_output)[i]);
      const A factor = grad_output / A(p.loss_scale);
      if (factor != A(1)) {
        S* grad = static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row) + c * p.class_stride;
        scale(grad, count, p.class_stride, factor);
      }
      begin += count;
    }
  });
}

}  // namespace

int64_t Backend::run(const ScaleGradient& problem) {
  dispatch<at::Half, at::BFloat16>(problem.dtype, [&](auto s) { scale_gradient<decltype(s)>(problem); });
  return kNoBadRow;
}

}  // namespace ce_ext::cpu
