// A tile of short rows that lie one after another, on its way through shared memory: all threads of the block access
// global memory in packs, and each then has a row of its own.
#pragma once

#include "cuda/rows/row_parts.cuh"

namespace ce_ext::cuda {

// In global memory the rows have S, or T, which is S or wider; in shared memory T.
template <class S, class T = S>
class Tile {
  static constexpr int kPacks = 4;  // that a thread loads before it puts the first away
  static constexpr int kSize = kPackSize<S>;
  using Part = RowPart<S, kPacks>;
  using A = opmath_t<S>;

 public:
  // The shared memory that it takes, in bytes: a multiple of 16 where `rows` is.
  static constexpr __host__ __device__ int64_t bytes(int64_t rows, int64_t classes) {
    return skew((rows * classes + kSize) * int64_t(sizeof(T))) + 16;
  }

  // `first` is where its rows start in global memory, of which there are `rows` or more than the block has threads. It
  // takes the dynamic shared memory of the block from `offset` on.
  __device__ __forceinline__ Tile(const S* first, int64_t classes, int64_t rows, int64_t offset = 0)
      : first_(first),
        offset_(offset),
        classes_(classes),
        rows_(rows < blockDim.x ? int(rows) : int(blockDim.x)),
        split_(first, rows_ * classes),
        shift_((kSize - split_.head % kSize) % kSize) {}

  // Between these, which all threads call, and the accesses to rows there have to be barriers.
  __device__ __forceinline__ void load() const { load(first_); }
  template <class Data>
  __device__ __forceinline__ void load(const Data* first) const {
    for_each_part([&](const Part& part) {
      typename Part::template Held<Data> held;
      part.load(first, held);
      part.for_each([&](int i, int64_t element, auto n) { convert(held.at(i, n), at(element, n)); });
    });
  }
  template <class Data>
  __device__ __forceinline__ void store(Data* first) const {
    const bool aligned = is_aligned(first + split_.head);
    for_each_part([&](const Part& part) {
      part.for_each([&](int, int64_t element, auto n) {
        Numbers<Data, n.value> numbers;
        convert(at(element, n), numbers);
        copy_out(numbers, aligned, first + element);
      });
    });
  }

  // The row of this thread.
  __device__ __forceinline__ bool has_row() const { return int(threadIdx.x) < rows_; }
  __device__ __forceinline__ A at(int, int64_t c) const { return cuda::load(in_row(c)); }
  __device__ __forceinline__ void load(int64_t c, A (&values)[1]) const { values[0] = cuda::load(in_row(c)); }
  __device__ __forceinline__ void store(int64_t c, const A (&values)[1]) const { cuda::store(in_row(c), values[0]); }

 private:
  // 16 bytes are left free behind every 128: rows of a power of two of bytes would all begin in the same banks. Packs
  // stay whole, and of threads that go along their rows in step no more than four meet in a bank.
  static constexpr __host__ __device__ int64_t skew(int64_t byte) { return byte + byte / 128 * 16; }

  template <int kCount>
  __device__ __forceinline__ Numbers<T, kCount>& at(int64_t element, std::integral_constant<int, kCount>) const {
    DYNAMIC_SHARED_ARRAY(unsigned char, bytes);
    return *reinterpret_cast<Numbers<T, kCount>*>(bytes + offset_ + skew((element + shift_) * int64_t(sizeof(T))));
  }
  __device__ __forceinline__ T* in_row(int64_t c) const {
    return at(threadIdx.x * classes_ + c, std::integral_constant<int, 1>()).stored;
  }

  template <class F>
  __device__ __forceinline__ void for_each_part(const F& f) const {
    const int threads = blockDim.x;
    const Team block({threads, threads, kPacks, 1});
    const int64_t chunks = chunks_of_row<kPacks, S>(split_.size, threads);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) f(Part(split_, block, chunk));
  }

  const S* first_;
  int64_t offset_;
  int64_t classes_;
  int rows_;
  RowSplit<S> split_;
  int shift_;
};

}  // namespace ce_ext::cuda
