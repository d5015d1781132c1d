// The CPU drivers of binary cross entropy: elements in chunks, chunks in tiles, and the formula on their lanes.
#include "losses/binary_cross_entropy.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <atomic>
#include <vector>

#include "cpu/backend.h"
#include "cpu/binary_elements.h"
#include "cpu/chunks.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"

namespace ce_ext::cpu {
namespace {

// Elements that are added up in one sum, of which a tile adds a few: one long sum loses accuracy, the more where its
// terms are alike.
constexpr int64_t kElementsPerSum = 256;

Chunks chunks_of(const Tiling& tiling, int64_t groups) {
  return Chunks(tiling.count, groups, kChunkElements / tiling.tile_elements, tiling.tile_elements);
}

template <class F>
void for_each_tile(const Tiling& tiling, const Chunk& chunk, F f) {
  for (int64_t i = chunk.first, end = chunk.first + chunk.rows; i < end; ++i) f(tiling[i]);
}

// Both return whether all targets, and all probabilities, are such.
template <class S, BinaryInput kInput, bool kPlain>
bool forward(const BinaryCrossEntropyForward& p, const Factors<S>& factors) {
  using A = opmath_t<S>;
  using V = Lanes<A>;
  const auto loss = BinaryCrossEntropy<V, kInput>::template make<A>(p.options);
  const Tiling tiling = tiling_of<S>(p, p.groups, p.loss_strides, p.loss_strides);
  const Chunks chunks = chunks_of(tiling, p.groups);
  std::vector<RowTotals> totals(chunks.count);
  std::atomic<bool> all_good = true;
  const auto run = [&](auto* losses) {
    if (p.reduction == Reduction::kNone) advise_huge_pages(losses, p.elements * sizeof(*losses));
    chunks.parallel([&](int64_t index, const Chunk& chunk) {
      Elements<S, kPlain> elements(p, factors, tiling.tile_elements);
      OutputTile<A, std::remove_pointer_t<decltype(losses)>> output;
      for_each_tile(tiling, chunk, [&](const TileElements& tile) {
        bool is_good = elements.load(tile);
        const bool is_none = p.reduction == Reduction::kNone;
        A* out = is_none ? output.open(losses, p.loss_strides, tile) : nullptr;
        V sum, count, bad;
        const auto add = [&](int64_t i, int64_t m, V& part) {
          const Element<V> e = elements.get(i, m);
          const V value = elements.unless_ignored(e, product(e.factor, loss.loss(e.x, e.target)));
          if (is_none) value.store(out + i, m);
          part = part + value.keep_first(m);
          if constexpr (!kPlain) count = count + elements.unless_ignored(e, V(A(1))).keep_first(m);
          if constexpr (kInput == BinaryInput::kProbability) {
            bad = bad + elements.unless_ignored(e, where(is_probability(e.x), V(A(0)), V(A(1))));
          }
        };
        for (int64_t begin = 0; begin < tile.n; begin += kElementsPerSum) {
          V part;
          for_each_vector<V>(std::min(kElementsPerSum, tile.n - begin),
                             [&](int64_t i, int64_t m) { add(begin + i, m, part); });
          sum = sum + part;
        }
        totals[index].merge({double(sum.sum()), kPlain ? double(tile.n) : double(count.sum())});
        is_good = is_good && bad.sum() == A(0);
        if (!is_good) all_good = false;
        if (is_none) output.store(losses, p.loss_strides, tile);
      });
    });
  };
  with_loss<S>(p, run);
  if (all_good) reduce_groups<S>(p, chunks, totals);
  return all_good;
}

template <class S, BinaryInput kInput, bool kPlain>
bool backward(const BinaryCrossEntropyBackward& p, const Factors<S>& factors) {
  using A = opmath_t<S>;
  using V = Lanes<A>;
  const auto loss = BinaryCrossEntropy<V, kInput>::template make<A>(p.options);
  std::atomic<bool> all_good = true;
  const auto run = [&](auto* grad_target) {
    auto* grad_input = static_cast<S*>(p.grad_input);
    if (grad_input) advise_huge_pages(grad_input, p.elements * sizeof(*grad_input));
    if (grad_target) advise_huge_pages(grad_target, p.elements * sizeof(*grad_target));
    const Tiling tiling = tiling_of<S>(p, 1, p.grad_input_strides, p.grad_target_strides);
    chunks_of(tiling, 1).parallel([&](int64_t, const Chunk& chunk) {
      Elements<S, kPlain> elements(p, factors, tiling.tile_elements);
      OutputTile<A, S> input_tile;
      OutputTile<A, std::remove_pointer_t<decltype(grad_target)>> target_tile;
      // Writes a tile of a gradient, factor times derivative(element).
      const auto write = [&](auto* memory, auto& result, const RowStrides& strides, const TileElements& tile,
                             auto derivative) {
        if (!memory) return;
        A* out = result.open(memory, strides, tile);
        for_each_vector<V>(tile.n, [&](int64_t i, int64_t m) {
          const Element<V> e = elements.get(i, m);
          elements.unless_ignored(e, product(e.factor, derivative(e))).store(out + i, m);
        });
        result.store(memory, strides, tile);
      };
      for_each_tile(tiling, chunk, [&](const TileElements& tile) {
        if (!elements.load(tile)) all_good = false;
        write(grad_input, input_tile, p.grad_input_strides, tile,
              [&](const Element<V>& e) { return loss.in_input(e.x, e.target); });
        write(grad_target, target_tile, p.grad_target_strides, tile,
              [&](const Element<V>& e) { return loss.in_target(e.x, e.target); });
      });
    });
  };
  p.grad_target_is_opmath ? run(static_cast<A*>(p.grad_target)) : run(static_cast<S*>(p.grad_target));
  return all_good;
}

}  // namespace

int64_t Backend::run(const BinaryCrossEntropyForward& p) {
  bool is_good = true;
  dispatch<c10::Half, c10::BFloat16>(p.dtype, [&](auto s) {
    using S = decltype(s);
    const Factors<S> factors(p);
    dispatch_input(p, [&](auto input) {
      dispatch_form(p, factors, [&](auto plain) { is_good = forward<S, input.value, plain.value>(p, factors); });
    });
  });
  return is_good ? kNoBadRow : 0;
}

int64_t Backend::run(const BinaryCrossEntropyBackward& p) {
  bool is_good = true;
  dispatch<c10::Half, c10::BFloat16>(p.dtype, [&](auto s) {
    using S = decltype(s);
    const Factors<S> factors(p);
    dispatch_input(p, [&](auto input) {
      dispatch_form(p, factors, [&](auto plain) { is_good = backward<S, input.value, plain.value>(p, factors); });
    });
  });
  return is_good ? kNoBadRow : 0;
}

}  // namespace ce_ext::cpu
