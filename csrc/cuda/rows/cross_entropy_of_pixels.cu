#include "cuda/rows/cross_entropy_launch.cuh"
#include "cuda/rows/cross_entropy_of_pixels.cuh"

namespace ce_ext::cuda {
namespace {

// Few, which start and end once for many pixels.
constexpr int64_t kPixelBlocks = 8192;

// Calls f with a value of the dtype and the number of planes that a thread of these slices holds.
template <class F>
void dispatch_pixels(DType dtype, const ClassSlices& slices, const F& f) {
  dispatch<__half, __nv_bfloat16>(dtype, [&](auto s) {
    if constexpr (sizeof(s) <= sizeof(float)) {
      const auto with_planes = [&](auto planes) {
        if (slices.planes() == planes.value) f(s, planes);
      };
      with_planes(std::integral_constant<int, kPlanesStep>());
      with_planes(std::integral_constant<int, 2 * kPlanesStep>());
      with_planes(std::integral_constant<int, 3 * kPlanesStep>());
      with_planes(std::integral_constant<int, 4 * kPlanesStep>());
      with_planes(std::integral_constant<int, 5 * kPlanesStep>());
      with_planes(std::integral_constant<int, 6 * kPlanesStep>());
    }
  });
}

}  // namespace

void launch_of_pixels(const CrossEntropyForward& p, const LaunchContext& context) {
  const ClassSlices slices(p.classes);
  const auto loss = make_loss<float>(p, 1, context);
  dispatch_pixels(p.dtype, slices, [&](auto s, auto planes) {
    using S = decltype(s);
    const Shares shares(p.rows, p.groups, slices.pixels<S>(), kPixelBlocks);
    launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
      LAUNCH((cross_entropy_forward_of_pixels<S, planes.value>), shares.count, slices.threads(), context.stream, p,
             loss, slices, shares, of_shares);
    });
  });
}

void launch_of_pixels(const CrossEntropyBackward& p, const LaunchContext& context) {
  const ClassSlices slices(p.classes);
  const auto loss = make_loss<float>(p, p.loss_scale, context);
  dispatch_pixels(p.dtype, slices, [&](auto s, auto planes) {
    using S = decltype(s);
    LAUNCH((cross_entropy_backward_of_pixels<S, planes.value>), divide_up(p.rows, slices.pixels<S>()), slices.threads(),
           context.stream, p, loss, slices);
  });
}

void launch_of_pixels(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const ClassSlices slices(p.forward.classes);
  const auto loss = make_loss<float>(p, context);
  dispatch_pixels(p.forward.dtype, slices, [&](auto s, auto planes) {
    using S = decltype(s);
    const Shares shares(p.forward.rows, p.forward.groups, slices.pixels<S>(), kPixelBlocks);
    launch_shares<S>(p.forward, shares, context, [&](RowTotals* of_shares) {
      LAUNCH((cross_entropy_with_grad_of_pixels<S, planes.value>), shares.count, slices.threads(), context.stream, p,
             loss, slices, shares, of_shares);
    });
  });
}

}  // namespace ce_ext::cuda
