// How the threads of a team go over a row whose classes lie side by side: in chunks of packs of 16 bytes, wherever the
// row starts and however long it is.
#pragma once

#include "cuda/device/packs.cuh"
#include "cuda/rows/teams.cuh"

namespace ce_ext::cuda {

// How many chunks it takes a team to go over a row, kPacks packs a thread at a time. (A row has fewer than 2^31 packs.)
template <class S, int kPacks>
__host__ __device__ __forceinline__ int chunks_of_row(int64_t classes, int team_size) {
  const int64_t chunk = int64_t(team_size) * kPacks * kPackSize<S>;
  return classes <= chunk ? 1 : int((classes + chunk - 1) / chunk);
}

// Goes over so many chunks, the first of which is held: load(chunk, held) brings the next one on its way while
// use(chunk) has what is held, which in the end is the last.
template <class Held, class Load, class Use>
__device__ __forceinline__ void for_each_chunk(int count, Held& held, const Load& load, const Use& use) {
  for (int chunk = 0; chunk < count - 1; ++chunk) {
    Held next = held;
    load(chunk + 1, next);
    use(chunk);
    held = next;
  }
  use(count - 1);
}

// Of a row of S, and of rows of other tensors that lie over it.
template <class S, int kPacks, class Team>
class RowChunks {
  static constexpr int kSize = kPackSize<S>;
  static constexpr int kChunk = kPacks * Team::kSize;  // packs
  using Single = std::integral_constant<int, 1>;
  using Pack = std::integral_constant<int, kSize>;

 public:
  // What a thread holds of a tensor: its packs of a chunk, every Team::kSize-th of them, one of the single elements
  // before all packs, and one of those behind.
  template <class T>
  struct Held {
    Numbers<T, kSize> packs[kPacks];
    Numbers<T, 1> singles[2];

    __device__ __forceinline__ Numbers<T, kSize>& at(int i, Pack) { return packs[i]; }
    __device__ __forceinline__ Numbers<T, 1>& at(int i, Single) { return singles[i]; }
  };

  __device__ __forceinline__ RowChunks(const S* row, int64_t classes) {
    const int misaligned = int(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(S));
    const int to_boundary = misaligned > 0 ? kSize - misaligned : 0;
    head_ = to_boundary < classes ? to_boundary : int(classes);
    packs_ = int((classes - head_) / kSize);
    tail_ = int(classes - head_ - int64_t(packs_) * kSize);
  }

  __device__ __forceinline__ int count() const { return packs_ <= kChunk ? 1 : (packs_ + kChunk - 1) / kChunk; }

  // Calls f(i, c, n) for the n classes from class c on, which are the thread's i-th pack of a chunk; the compiler knows
  // i and n.value. Of a whole chunk, which all but the last are, nothing is asked.
  template <class F>
  __device__ __forceinline__ void for_each_pack(int chunk, const F& f) const {
    const int first = chunk * kChunk + Team::rank();
    const int64_t c = head_ + int64_t(first) * kSize;
    if (is_whole(chunk)) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) f(i, c + i * (Team::kSize * kSize), Pack());
    } else {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        if (first + i * Team::kSize < packs_) f(i, c + i * (Team::kSize * kSize), Pack());
      }
    }
  }
  template <class F>
  __device__ __forceinline__ void for_each_single(const F& f) const {
    if (Team::rank() < head_) f(0, int64_t(Team::rank()), Single());
    if (Team::rank() < tail_) f(1, packs_end() + Team::rank(), Single());
  }
  // Both; the singles belong to the first chunk.
  template <class F>
  __device__ __forceinline__ void for_each(int chunk, const F& f) const {
    for_each_pack(chunk, f);
    if (chunk == 0 && has_singles()) for_each_single(f);
  }

  // Loads what for_each goes over, all before any is used, from the row that this was made of. Where a chunk has no
  // pack or single element, `fill` is held.
  template <class Load = PlainLoad>
  __device__ __forceinline__ void load(int chunk, const S* row, Held<S>& held, opmath_t<S> fill,
                                       const Load& load = {}) const {
    load_packs(chunk, held, fill, [&](int64_t c) { return load(row + c); });
    if (chunk == 0 && has_singles()) load_singles(row, held, fill);
  }

  // The same of another tensor, whose packs may not be aligned.
  template <class T>
  __device__ __forceinline__ void load_other(int chunk, const T* row, Held<T>& held, opmath_t<T> fill) const {
    with_alignment(row, [&](auto aligned) {
      load_packs(chunk, held, fill, [&](int64_t c) {
        Numbers<T, kSize> pack;
        copy_in(row + c, aligned.value, pack);
        return pack;
      });
    });
    if (chunk == 0 && has_singles()) load_singles(row, held, fill);
  }

  // Calls f with a constant: whether the packs of a tensor are aligned, as those of the row itself always are.
  template <class T, class F>
  __device__ __forceinline__ void with_alignment(const T* row, const F& f) const {
    if (is_aligned(row + head_)) {
      f(std::true_type());
    } else {
      f(std::false_type());
    }
  }

  // Whether a class is one of those that this thread goes over in a chunk, or in any.
  __device__ __forceinline__ bool owns(int64_t c) const { return owner(c) == Team::rank(); }
  __device__ __forceinline__ bool owns(int chunk, int64_t c) const {
    const bool in_chunk = is_single(c) ? chunk == 0 : pack_of(c) / kChunk == chunk;
    return in_chunk && owns(c);
  }

  __device__ __forceinline__ bool has_singles() const { return head_ + tail_ > 0; }

 private:
  __device__ __forceinline__ bool is_whole(int chunk) const { return (chunk + 1) * kChunk <= packs_; }
  __device__ __forceinline__ int64_t packs_end() const { return head_ + int64_t(packs_) * kSize; }
  __device__ __forceinline__ bool is_single(int64_t c) const { return c < head_ || c >= packs_end(); }
  __device__ __forceinline__ int pack_of(int64_t c) const { return int((c - head_) / kSize); }
  __device__ __forceinline__ int owner(int64_t c) const {
    if (c < head_) return int(c);
    return c >= packs_end() ? int(c - packs_end()) : pack_of(c) % Team::kSize;
  }

  // load(c) gives the pack from class c on.
  template <class T, class Load>
  __device__ __forceinline__ void load_packs(int chunk, Held<T>& held, opmath_t<T> fill, const Load& load) const {
    const int first = chunk * kChunk + Team::rank();
    const int64_t c = head_ + int64_t(first) * kSize;
    if (is_whole(chunk)) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) held.packs[i] = load(c + i * (Team::kSize * kSize));
    } else {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const bool is_there = first + i * Team::kSize < packs_;
        held.packs[i] = is_there ? load(c + i * (Team::kSize * kSize)) : filled<T, kSize>(fill);
      }
    }
  }
  template <class T>
  __device__ __forceinline__ void load_singles(const T* row, Held<T>& held, opmath_t<T> fill) const {
    held.singles[0] = held.singles[1] = filled<T, 1>(fill);
    for_each_single([&](int i, int64_t c, Single) { held.singles[i] = {row[c]}; });
  }

  int head_, packs_, tail_;  // single elements, packs, single elements
};

}  // namespace ce_ext::cuda
