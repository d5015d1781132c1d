// The CPU drivers of soft cross entropy.
#include "cpu/backend.h"
#include "cpu/soft_cross_entropy_backward.h"
#include "cpu/soft_cross_entropy_forward.h"

namespace ce_ext::cpu {
namespace {

template <class A, class Form>
void forward(const SoftCrossEntropyForward& p) {
  const SoftCrossEntropyForwardRows<A, Form> rows(p);
  std::vector<RowTotals> totals(rows.chunks().count);
  rows.chunks().parallel([&](int64_t index, const Chunk& chunk) { totals[index] = rows.run(chunk); });
  reduce_groups<A>(p, rows.chunks(), totals);
}

template <class A, bool kLogitsChange, bool kFocal>
void backward(const SoftCrossEntropyBackward& p) {
  const SoftCrossEntropyBackwardRows<A, kLogitsChange, kFocal> rows(p);
  rows.chunks().parallel([&](int64_t, const Chunk& chunk) { rows.run(chunk); });
}

}  // namespace

int64_t Backend::run(const SoftCrossEntropyForward& p) {
  dispatch_opmath(p.dtype,
                  [&](auto a) { dispatch_form(p, [&](auto form) { forward<decltype(a), decltype(form)>(p); }); });
  return kNoBadRow;
}

int64_t Backend::run(const SoftCrossEntropyBackward& p) {
  dispatch_opmath(p.dtype, [&](auto a) {
    dispatch_form(p, [&](auto logits_change, auto focal) { backward<decltype(a), logits_change, focal>(p); });
  });
  return kNoBadRow;
}

}  // namespace ce_ext::cpu
