// What the threads of a team take of a row whose classes lie side by side: packs of 16 bytes, wherever the row starts
// and however long it is.
#pragma once

#include "cuda/device/packs.cuh"
#include "cuda/rows/policy.cuh"
#include "cuda/rows/teams.cuh"

namespace ce_ext::cuda {

// How many chunks it takes a team to go over a row, kPacks packs a thread at a time.
template <int kPacks, class S>
__host__ __device__ int64_t chunks_of_row(int64_t classes, int team_size) {
  const int64_t chunk = int64_t(team_size) * kPacks * kPackSize<S>;
  return classes <= chunk ? 1 : (classes + chunk - 1) / chunk;
}

// The part of one thread in a chunk of the row: every team.size()-th pack, up to kPacks of them, and in the first chunk
// one element of those before the packs and one of those behind.
template <class S, int kPacks>
class RowPart {
  static constexpr int kSize = kPackSize<S>;
  using Single = std::integral_constant<int, 1>;
  using Pack = std::integral_constant<int, kSize>;

 public:
  // What a thread holds of a tensor that lies over the row.
  template <class T>
  class Held {
   public:
    __device__ __forceinline__ Numbers<T, kSize>& at(int i, Pack) { return packs_[i]; }
    __device__ __forceinline__ Numbers<T, 1>& at(int i, Single) { return singles_[i]; }

   private:
    Numbers<T, kSize> packs_[kPacks];
    Numbers<T, 1> singles_[2];
  };

  // A team has as many lanes as there are single elements before the packs, or behind them, and more.
  __device__ __forceinline__ RowPart(const RowSplit<S>& split, const Team& team, int64_t chunk)
      : split_(split),
        first_(split.head + (chunk * kPacks * team.size() + team.rank()) * kSize),
        step_(team.size() * kSize),
        rank_(chunk == 0 ? team.rank() : kSize) {
    const int64_t left = split.packs_end - first_;
    left_ = left > kPacks * step_ ? kPacks * step_ : int(left);
  }

  // Calls f(i, c, n) for the n classes from class c on, which are the thread's i-th pack or single element; the
  // compiler knows i and n.value.
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) const {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (i * step_ < left_) f(i, first_ + i * step_, Pack());
    }
    if (rank_ < split_.head) f(0, int64_t(rank_), Single());
    if (rank_ < split_.size - split_.packs_end) f(1, split_.packs_end + rank_, Single());
  }

  // Loads all before any is used.
  template <class T>
  __device__ __forceinline__ void load(const T* row, Held<T>& held) const {
    const bool aligned = is_aligned(row + split_.head);
    for_each([&](int i, int64_t c, auto n) { copy_in(row + c, aligned, held.at(i, n)); });
  }

 private:
  const RowSplit<S>& split_;
  int64_t first_;
  int step_;
  int left_;  // elements from there on that are in packs, as far as they matter
  int rank_;
};

}  // namespace ce_ext::cuda
