// What this library shows of itself.
#include "host/drivers.h"

#include "cpu/backend.h"

const ce_ext::Drivers* ce_ext_drivers() {
  static constexpr auto kDrivers = ce_ext::Drivers::of<ce_ext::cpu::Backend>();
  return &kDrivers;
}
