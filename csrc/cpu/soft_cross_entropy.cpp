// The CPU drivers of soft cross entropy.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cpu/backend.h"
#include "cpu/soft_cross_entropy_backward.h"
#include "cpu/soft_cross_entropy_forward.h"

namespace ce_ext::cpu {
namespace {

template <class S, class Q, class Form>
void forward(const SoftCrossEntropyForward& p) {
  const SoftCrossEntropyForwardRows<S, Q, Form> rows(p);
  std::vector<RowTotals> totals(rows.chunks().count);
  rows.chunks().parallel([&](int64_t index, const Chunk& chunk) { totals[index] = rows.run(chunk); });
  reduce_groups<S>(p, rows.chunks(), totals);
}

template <class S, class Q, bool kLogitsChange>
void backward(const SoftCrossEntropyBackward& p) {
  const SoftCrossEntropyBackwardRows<S, Q, kLogitsChange> rows(p);
  rows.chunks().parallel([&](int64_t, const Chunk& chunk) { rows.run(chunk); });
}

}  // namespace

int64_t Backend::run(const SoftCrossEntropyForward& p) {
  dispatch<c10::Half, c10::BFloat16>(p, [&](auto s, auto q) {
    dispatch_form(p, [&](auto form) { forward<decltype(s), decltype(q), decltype(form)>(p); });
  });
  return kNoBadRow;
}

int64_t Backend::run(const SoftCrossEntropyBackward& p) {
  dispatch<c10::Half, c10::BFloat16>(p, [&](auto s, auto q) {
    using S = decltype(s);
    using Q = decltype(q);
    p.options.logits.change() ? backward<S, Q, true>(p) : backward<S, Q, false>(p);
  });
  return kNoBadRow;
}

}  // namespace ce_ext::cpu
