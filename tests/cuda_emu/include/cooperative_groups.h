// Stands in for the CUDA toolkit's header.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct cluster_group {
  static void sync(CUDA_EMU_HERE) { cuda_emu::meet_cluster("cluster.sync", at); }
  static unsigned block_rank() { return cuda_emu::cluster_rank(); }
  static unsigned num_blocks() { return cuda_emu::cluster_size(); }

  template <class T>
  static T* map_shared_rank(T* address, unsigned rank, CUDA_EMU_HERE) {
    return static_cast<T*>(cuda_emu::map_shared(address, rank, at));
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
