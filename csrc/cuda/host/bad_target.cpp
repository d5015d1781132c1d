#include "cuda/host/bad_target.h"

#include <c10/util/Exception.h>

namespace ce_ext::cuda {

void check_bad_target(BadTarget& record, int device) {
  unsigned state = __atomic_load_n(&record.state, __ATOMIC_RELAXED);
  // Claimed like the device does it, so that of several threads one raises.
  if (state != BadTarget::kReported || !__atomic_compare_exchange_n(&record.state, &state, BadTarget::kClaimed, false,
                                                                    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
    return;
  }
  const BadTarget found = record;
  __atomic_store_n(&record.state, BadTarget::kFree, __ATOMIC_RELEASE);
  TORCH_CHECK_INDEX(false, "target.flatten()[", found.row, "] = ", found.value, " is out of bounds: input has ",
                    found.classes, " classes. An earlier call of ce_ext on cuda:", device,
                    " found it, and its loss is NaN");
}

}  // namespace ce_ext::cuda
