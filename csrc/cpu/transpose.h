// Matrices transposed on their way between memory and the cache: blocks of them in registers.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/lanes.h"

namespace ce_ext::cpu {

// Transposes the matrix whose rows are these vectors, as many as a power of two: a perfect shuffle of them for every
// bit of their number. The result is as many vectors, in which columns lie one after another. (What columns need that
// the caller makes no use of, compilers leave out.)
template <class T, size_t kRows, size_t kBit = 1>
C10_ALWAYS_INLINE void transpose(Lanes<T> (&rows)[kRows]) {
  constexpr int kHalf = kRows / 2;
  if constexpr (kBit <= kHalf) {
    Lanes<T> shuffled[kRows];
    unroll<kHalf>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
      const auto pair = at::vec::interleave2(rows[i].vec, rows[i + kHalf].vec);
      shuffled[2 * i].vec = pair.first;
      shuffled[2 * i + 1].vec = pair.second;
    });
    unroll<kRows>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { rows[i] = shuffled[i]; });
    transpose<T, kRows, 2 * kBit>(rows);
  }
}

// The same the other way round, of vectors of which the first kFirst are given and the others are anything. (Those that
// are given after so many shuffles are bits of kGiven.)
template <int kFirst, class T, size_t kRows, size_t kBit = 1, uint32_t kGiven = (uint32_t(1) << kFirst) - 1>
C10_ALWAYS_INLINE void transpose_back(Lanes<T> (&rows)[kRows]) {
  constexpr int kHalf = kRows / 2;
  if constexpr (kBit <= kHalf) {
    constexpr auto is_given = [](int pair) { return (kGiven >> (2 * pair) & 3) != 0; };
    constexpr uint32_t kSorted = [&] {
      uint32_t bits = 0;
      for (int i = 0; i < kHalf; ++i) bits |= is_given(i) ? (1 | 1 << kHalf) << i : 0;
      return bits;
    }();
    Lanes<T> sorted[kRows];
    unroll<kHalf>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
      if constexpr (is_given(i)) {
        const auto pair = at::vec::deinterleave2(rows[2 * i].vec, rows[2 * i + 1].vec);
        sorted[i].vec = pair.first;
        sorted[i + kHalf].vec = pair.second;
      }
    });
    unroll<kRows>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { rows[i] = sorted[i]; });
    transpose_back<kFirst, T, kRows, 2 * kBit, kSorted>(rows);
  }
}

// Calls f with the least width of a block that has room for n columns: the wider, the more shuffles it takes.
template <class V, class F>
void with_block_width(int64_t n, F f) {
  constexpr int kSize = V::kSize;
  if (n <= kSize / 8) return f(std::integral_constant<int, std::max(kSize / 8, 1)>());
  if (n <= kSize / 4) return f(std::integral_constant<int, std::max(kSize / 4, 1)>());
  if (n <= kSize / 2) return f(std::integral_constant<int, kSize / 2>());
  if (n <= kSize * 3 / 4) return f(std::integral_constant<int, kSize * 3 / 4>());
  f(std::integral_constant<int, kSize>());
}

// Calls f with the number of columns where a vector holds several rows and there are as many vectors as columns; else
// returns false.
template <class V, class F>
bool with_dense_width(int64_t row_stride, int64_t columns, F f) {
  if (row_stride != columns || columns >= V::kSize) return false;
  if (columns == 2) return f(std::integral_constant<int, 2>()), true;
  if (columns == 4) return f(std::integral_constant<int, 4>()), true;
  if (columns == 8) return f(std::integral_constant<int, 8>()), true;
  return false;
}

template <int kColumns, class A, class S>
void load_dense_block(A* to, int64_t pitch, const S* from) {
  using V = Lanes<A>;
  V block[kColumns];
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * V::kSize); });
  transpose_back<kColumns>(block);
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * pitch); });
}
template <int kColumns, class A, class S>
void store_dense_block(S* to, const A* from, int64_t pitch) {
  using V = Lanes<A>;
  V block[kColumns];
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * pitch); });
  transpose(block);
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * V::kSize); });
}

// As many rows as a vector has lanes, and whole vectors of them, of which the first kColumns count: kept of those that
// are read, or given for those that are written.
template <int kColumns, class A, class To, class From>
void load_block(To* to, int64_t pitch, const From* from, int64_t row_stride) {
  using V = Lanes<A>;
  V block[V::kSize];
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * row_stride); });
  transpose(block);
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * pitch); });
}
template <int kColumns, class A, class S>
void store_block(S* to, int64_t row_stride, const A* from, int64_t pitch) {
  using V = Lanes<A>;
  V block[V::kSize];
  unroll<kColumns>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * pitch); });
  if constexpr (kColumns == V::kSize) {
    transpose(block);
  } else {
    transpose_back<kColumns>(block);
  }
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * row_stride); });
}

// Part of a block.
template <class A, class S>
void load_block_part(A* to, int64_t pitch, const S* from, int64_t row_stride, int64_t rows, int64_t columns) {
  using V = Lanes<A>;
  V block[V::kSize];
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
    block[i] = V::load(from + std::min<int64_t>(i, rows - 1) * row_stride, columns, A(0));
  });
  transpose(block);
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * pitch, rows); });
}
template <class A, class S>
void store_block_part(S* to, int64_t row_stride, const A* from, int64_t pitch, int64_t rows, int64_t columns) {
  using V = Lanes<A>;
  V block[V::kSize];
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * pitch); });
  transpose(block);
  unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
    if (i < rows) block[i].store(to + i * row_stride, columns);
  });
}

// to[c * pitch + r] = from[r * row_stride + c]. Whole vectors are read wherever the rows have room for them. `to` has
// room for columns that fill the last block.
template <class A, class S>
void load_transposed(A* to, int64_t pitch, const S* from, int64_t row_stride, int64_t rows, int64_t columns) {
  using V = Lanes<A>;
  const S* end = from + (rows - 1) * row_stride + columns;
  for (int64_t r = 0; r < rows; r += V::kSize, to += V::kSize, from += V::kSize * row_stride) {
    const int64_t m = std::min<int64_t>(V::kSize, rows - r);
    const auto load_dense = [&](auto width) { load_dense_block<width>(to, pitch, from); };
    if (m == V::kSize && with_dense_width<V>(row_stride, columns, load_dense)) continue;
    for (int64_t c = 0; c < columns; c += V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, columns - c);
      if (m == V::kSize && from + c + (m - 1) * row_stride + V::kSize <= end) {
        with_block_width<V>(n, [&](auto width) { load_block<width, A>(to + c * pitch, pitch, from + c, row_stride); });
      } else {
        load_block_part(to + c * pitch, pitch, from + c, row_stride, m, n);
      }
    }
  }
}

// to[r * row_stride + c] = from[c * pitch + r]. Whole vectors are written where rows follow each other without a gap:
// what is too much of one is overwritten by the block that it belongs to.
template <class A, class S>
void store_transposed(S* to, int64_t row_stride, const A* from, int64_t pitch, int64_t rows, int64_t columns) {
  using V = Lanes<A>;
  const S* end = to + (rows - 1) * row_stride + columns;
  for (int64_t r = 0; r < rows; r += V::kSize, to += V::kSize * row_stride, from += V::kSize) {
    const int64_t m = std::min<int64_t>(V::kSize, rows - r);
    const auto store_dense = [&](auto width) { store_dense_block<width>(to, from, pitch); };
    if (m == V::kSize && with_dense_width<V>(row_stride, columns, store_dense)) continue;
    for (int64_t c = (columns - 1) / V::kSize * V::kSize; c >= 0; c -= V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, columns - c);
      const bool has_room = row_stride == columns && to + c + (m - 1) * row_stride + V::kSize <= end;
      if (m == V::kSize && (n == V::kSize || has_room)) {
        with_block_width<V>(n, [&](auto width) { store_block<width>(to + c, row_stride, from + c * pitch, pitch); });
      } else {
        store_block_part(to + c, row_stride, from + c * pitch, pitch, m, n);
      }
    }
  }
}

// to[c * to_stride + r] = from[r * from_stride + c], of any types, where neither side has room for more.
template <class To, class From>
void copy_transposed(To* to, int64_t to_stride, const From* from, int64_t from_stride, int64_t rows, int64_t columns) {
  using A = std::conditional_t<kIsHalf<To>, From, To>;
  using V = Lanes<A>;
  constexpr bool kHasLanes = std::is_floating_point_v<A> && (std::is_same_v<A, From> || kIsHalf<From>);
  if constexpr (kHasLanes) {
    if (rows >= V::kSize && columns >= V::kSize) {
      // All of them whole: the last overlap those before.
      for (int64_t r = 0; r < rows; r += V::kSize) {
        for (int64_t c = 0; c < columns; c += V::kSize) {
          const int64_t row = std::min(r, rows - V::kSize), column = std::min(c, columns - V::kSize);
          load_block<V::kSize, A>(to + column * to_stride + row, to_stride, from + row * from_stride + column,
                                  from_stride);
        }
      }
      return;
    }
  }
  if (rows < columns) {
    for (int64_t r = 0; r < rows; ++r) copy_run(to + r, to_stride, from + r * from_stride, 1, columns);
  } else {
    for (int64_t c = 0; c < columns; ++c) copy_run(to + c * to_stride, 1, from + c, from_stride, rows);
  }
}

}  // namespace ce_ext::cpu
