// The smaller and the larger of two halves as the instructions find them: NaN, always the same one, if either is NaN,
// and -0 below +0.
#pragma once

namespace cuda_emu {

template <class Half>
Half min_or_nan(Half a, Half b, float a_value, float b_value) {
  if (a_value != a_value || b_value != b_value) return {0x7fff};
  if (a_value == b_value) return {decltype(a.bits)(a.bits | b.bits)};  // the same, or zeros
  return a_value < b_value ? a : b;
}

template <class Half>
Half max_or_nan(Half a, Half b, float a_value, float b_value) {
  if (a_value != a_value || b_value != b_value) return {0x7fff};
  if (a_value == b_value) return {decltype(a.bits)(a.bits & b.bits)};
  return a_value < b_value ? b : a;
}

}  // namespace cuda_emu
