// Tiles of short rows that lie one after another, on their way through shared memory: all threads of the block copy
// 16 bytes at a time, while the tile before is worked on, and then lanes of a warp share rows.
#pragma once

#include "cuda/device/async_copies.cuh"
#include "cuda/device/packs.cuh"
#include "cuda/device/shares.cuh"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {

constexpr int kTileThreads = 128;
constexpr int kTileWarps = kTileThreads / kWarpSize;

// Shared memory of a block: of so many bytes a multiprocessor holds eight blocks.
constexpr int64_t kTileBytes = 26 * 1024;

// How the rows of a tile are shared.
struct TileShape {
  int warp_rows;  // rows of each warp: 4, 8, 16 or 32, which are as many lanes that finish one
  int lane_bits;  // lanes that go over a row together are a power of two
  int word;       // bytes that a lane takes at a time

  // Of rows of `row_bytes`, which take `stage_bytes` of a stage with all that belongs to them. Words have `element`
  // bytes or, where `wider` allows it and the rows from `first` on begin at such addresses, 4 or 16.
  TileShape(int64_t row_bytes, int64_t stage_bytes, int element, bool wider, const void* first)
      : warp_rows(kWarpSize), lane_bits(0), word(element) {
    while (warp_rows > 4 && 2 * kTileWarps * warp_rows * stage_bytes > kTileBytes) warp_rows /= 2;
    for (int bytes : {4, 16}) {
      if (wider && bytes > element && row_bytes % bytes == 0 && is_aligned(first, bytes)) word = bytes;
    }
    // An odd number of words for each lane, or lanes that take 128 bytes at a time, meet in no bank.
    int64_t words = row_bytes / word;
    while (words % 2 == 0 && lanes() < kWarpSize && lanes() * word < 128) words /= 2, ++lane_bits;
    while (warp_rows * lanes() < kWarpSize) ++lane_bits;
  }

  __host__ __device__ int lanes() const { return 1 << lane_bits; }
  // Rows that a warp goes over at a time.
  __host__ __device__ int at_once() const { return kWarpSize >> lane_bits; }

  __host__ __device__ int rows() const { return kTileWarps * warp_rows; }
};

// Calls f with a constant, the bytes of a word.
template <class S, bool kWider, class F>
void dispatch_word(const TileShape& shape, const F& f) {
  if constexpr (kWider) {
    if (shape.word == 16) return f(std::integral_constant<int, 16>());
    if constexpr (sizeof(S) < 4) {
      if (shape.word == 4) return f(std::integral_constant<int, 4>());
    }
  }
  f(std::integral_constant<int, sizeof(S)>());
}

// Rows of one tensor in shared memory.
template <class S>
class Tile {
 public:
  // Bytes for so many rows, wherever they begin: a multiple of 16.
  static __host__ __device__ int bytes(int rows, int classes) {
    return (rows * classes * int(sizeof(S)) + 15) / 16 * 16 + 16;
  }

  // In shared memory they lie as they do in global memory, where `first` is, as far as multiples of 16 go.
  __device__ __forceinline__ Tile(void* memory, const S* first, int classes, int rows)
      : first_(reinterpret_cast<S*>(static_cast<char*>(memory) + reinterpret_cast<uintptr_t>(first) % 16)),
        classes_(classes),
        rows_(rows) {}

  // All threads of the block call these. Copies that are started have to be committed and waited for; between what is
  // stored and accesses to other rows there has to be a barrier.
  __device__ __forceinline__ void start_load(const S* from) const {
    copy(
        from, [](S* shared, const S* global) { copy_async(shared, global); },
        [](S* shared, const S* global) { *shared = *global; });
  }
  __device__ __forceinline__ void store(S* to) const {
    if (reinterpret_cast<uintptr_t>(to) % 16 == reinterpret_cast<uintptr_t>(first_) % 16) {
      copy(
          to,
          [](const S* shared, S* global) {
            *reinterpret_cast<uint4*>(global) = *reinterpret_cast<const uint4*>(shared);
          },
          [](const S* shared, S* global) { *global = *shared; });
    } else {
      for (int i = threadIdx.x; i < rows_ * classes_; i += kTileThreads) to[i] = first_[i];
    }
  }

  __device__ __forceinline__ int rows() const { return rows_; }
  __device__ __forceinline__ int classes() const { return classes_; }
  __device__ __forceinline__ S* row(int r) const { return first_ + r * classes_; }

 private:
  // Of what lies between multiples of 16 bytes, packs; of the rest, single elements.
  template <class Global, class CopyPack, class CopySingle>
  __device__ __forceinline__ void copy(Global* global, const CopyPack& copy_pack, const CopySingle& copy_single) const {
    constexpr int kPack = kPackSize<S>;
    const int size = rows_ * classes_;
    const int misaligned = int(reinterpret_cast<uintptr_t>(first_) % 16 / sizeof(S));
    const int to_boundary = misaligned > 0 ? kPack - misaligned : 0;
    const int head = to_boundary < size ? to_boundary : size;
    const int packs_end = head + (size - head) / kPack * kPack;
#pragma unroll 4
    for (int i = head + threadIdx.x * kPack; i < packs_end; i += kTileThreads * kPack)
      copy_pack(first_ + i, global + i);
    const int single = int(threadIdx.x) < head ? threadIdx.x : packs_end + threadIdx.x - head;
    if (single < size) copy_single(first_ + single, global + single);
  }

  S* first_;
  int classes_, rows_;
};

// Goes through the tiles of the block's share: start(first, rows, memory) starts the copies of a tile, of so many rows
// from `first` on, into a stage of shared memory while use(first, rows, memory) has the one before.
template <class Start, class Use>
__device__ __forceinline__ void for_each_tile(const Shares& shares, const TileShape& shape, int stage_bytes,
                                              const Start& start, const Use& use) {
  DYNAMIC_SHARED_ARRAY(unsigned char, memory);
  const int64_t begin = shares.begin(blockIdx.x), end = shares.end(blockIdx.x);
  const auto rows_from = [&](int64_t first) { return end - first < shape.rows() ? int(end - first) : shape.rows(); };
  if (begin < end) start(begin, rows_from(begin), memory);
  commit_copies();
  int stage = 0;
  for (int64_t first = begin; first < end; first += shape.rows()) {
    const int64_t next = first + shape.rows();
    if (next < end) start(next, rows_from(next), memory + (stage ^ 1) * stage_bytes);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    use(first, rows_from(first), memory + stage * stage_bytes);
    __syncthreads();  // before the stage is filled again
    stage ^= 1;
  }
}

// A lane's part of a row: words of kWord bytes that lie `lanes` apart.
template <class S, int kWord>
struct RowWords {
  static constexpr int kCount = kWord / int(sizeof(S));  // classes of a word
  static constexpr int kAtOnce = kCount >= 4 ? 2 : 4;
  using Word = Numbers<S, kCount>;

  Word* row;
  int words, lane, lanes;

  // Calls f(k, count) for words from the k-th on, `lanes` apart: kAtOnce of them, or one, both constants.
  template <class F>
  __device__ __forceinline__ void for_each_words(const F& f) const {
    int k = lane;
    for (; k + (kAtOnce - 1) * lanes < words; k += kAtOnce * lanes) f(k, std::integral_constant<int, kAtOnce>());
#pragma unroll 1
    for (; k < words; k += lanes) f(k, std::integral_constant<int, 1>());
  }

  // Calls f(word, c) for each of the lane's words, which is that of the classes from c on.
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) const {
    for_each_words([&](int first, auto count) {
#pragma unroll
      for (int i = 0; i < count.value; ++i) f(row[first + i * lanes], (first + i * lanes) * kCount);
    });
  }

  // The sums of the lane's words: `add` as sum_row has it, and add.softmax(sums) where words are taken as they lie in
  // memory.
  template <class Sums, class Add>
  __device__ __forceinline__ Sums sum(const Add& add) const {
    Sums sums;
    if constexpr (Add::kTakesNumbers) {
      add_up(add.softmax(sums));
    } else {
      for_each([&](const Word& word, int c) {
        typename Add::Value values[kCount];
        convert(word, values);
        add(sums, values, c);
      });
    }
    return sums;
  }

 private:
  // Reads the words twice, first for their maximum: that costs less than to measure the sums from another, over and
  // over. A word plays against the best before it, so that in the end one instance of the maximum has never lost.
  template <class Sums>
  __device__ __forceinline__ void add_up(Sums& sums) const {
    using A = opmath_t<S>;
    using Player = std::conditional_t<Word::kPaired, S, A>;  // halves play in pairs, everything else as numbers
    using Players = Numbers<Player, kCount>;
    constexpr int kStored = std::extent_v<decltype(Players::stored)>;
    const Players lowest = filled<Player, kCount>(A(-INFINITY));
    Players champions = lowest, players;
    for_each([&](const Word& word, int) {
      convert(word, players);
#pragma unroll
      for (int j = 0; j < kStored; ++j) champions.stored[j] = maximum(champions.stored[j], players.stored[j]);
    });
    A values[kCount];
    convert(champions, values);
#pragma unroll
    for (const A value : values) sums.max = maximum(sums.max, value);
    champions = lowest;
    for_each_words([&](int first, auto count) {
      Sums of_words;  // a long sum of terms that are all alike would round each of them the same way
      of_words.max = sums.max;
#pragma unroll
      for (int i = 0; i < count.value; ++i) {
        convert(row[first + i * lanes], players);
#pragma unroll
        for (int j = 0; j < kStored; ++j) players.stored[j] = match(champions.stored[j], players.stored[j]);
        convert(players, values);
#pragma unroll
        for (const A value : values) of_words.add_loser(value);
      }
      sums.add_sums(of_words);
    });
    convert(champions, values);
    hold_tournament(values);
#pragma unroll
    for (int i = 1; i < kCount; ++i) sums.add_loser(values[i]);
  }
};

// How a warp goes over its rows of a tile: shape.lanes() lanes share a row, as many rows at a time as that allows, and
// the i-th row is finished by lane i. All lanes stay together.
class WarpRows {
 public:
  __device__ __forceinline__ explicit WarpRows(const TileShape& shape)
      : shape_(shape), lane_(threadIdx.x % kWarpSize), first_(threadIdx.x / kWarpSize * shape.warp_rows) {}

  // The row that this lane finishes, if it is one of so many in the tile.
  __device__ __forceinline__ int own() const { return first_ + lane_; }
  __device__ __forceinline__ bool has_own(int rows) const { return lane_ < shape_.warp_rows && own() < rows; }

  // sum(r) gives what this lane has to add to row r. Returns the sums of the lane's own row. Rows of a tile that has
  // fewer than its shape get sums of whatever its memory holds.
  template <class Sum>
  __device__ __forceinline__ auto sum_up(const Sum& sum) const {
    using Sums = decltype(sum(0));
    if (shape_.lane_bits == 0) return sum(own());
    Sums of_own;
    for_each([&](int r, int step) {
      const Sums of_row = warp_reduce(sum(r), shape_.lanes());
      const Sums from_other = shuffle(of_row, (lane_ & (shape_.at_once() - 1)) << shape_.lane_bits);
      if (lane_ >> (5 - shape_.lane_bits) == step) of_own = from_other;
    });
    return of_own;
  }

  // write(r, value) has the value that the lane which finishes row r gives.
  template <class T, class Write>
  __device__ __forceinline__ void write(const T& value, const Write& write) const {
    if (shape_.lane_bits == 0) return write(own(), value);
    for_each([&](int r, int) { write(r, shuffle(value, r - first_)); });
  }

  // This lane's part of row r.
  template <int kWord, class S>
  __device__ __forceinline__ RowWords<S, kWord> words_of(const Tile<S>& tile, int r) const {
    using Word = typename RowWords<S, kWord>::Word;
    return {reinterpret_cast<Word*>(tile.row(r)), int(unsigned(tile.classes()) * unsigned(sizeof(S)) / kWord),
            lane_ & (shape_.lanes() - 1), shape_.lanes()};
  }

 private:
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) const {
    int step = 0;
    for (int r = lane_ >> shape_.lane_bits; r < shape_.warp_rows; r += shape_.at_once()) f(first_ + r, step++);
  }

  const TileShape& shape_;
  int lane_, first_;
};

}  // namespace ce_ext::cuda
