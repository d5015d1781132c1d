// The CPU drivers of binary cross entropy: elements in chunks, chunks in tiles, and the formula on their lanes.
#include <atomic>
#include <vector>

#include "cpu/backend.h"
#include "cpu/binary_elements.h"
#include "cpu/chunks.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"
#include "losses/asymmetric_loss.h"

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
template <class A, BinaryInput kInput, bool kPlain>
bool forward(const BinaryCrossEntropyForward& p, const Factors<A>& factors) {
  using V = Lanes<A>;
  const auto loss = BinaryLoss<V, kInput>::template make<A>(p.options);
  const Tiling tiling = tiling_of(p, p.groups, p.loss_strides, p.loss_strides);
  const Chunks chunks = chunks_of(tiling, p.groups);
  const DType loss_dtype = opmath_if(p.loss_is_opmath, p.dtype);
  const bool is_none = p.reduction == Reduction::kNone;
  if (is_none) advise_huge_pages(p.loss, p.elements * size_of(loss_dtype));
  std::vector<RowTotals> totals(chunks.count);
  std::atomic<bool> all_good = true;
  chunks.parallel([&](int64_t index, const Chunk& chunk) {
    Elements<A, kPlain> elements(p, factors, tiling.tile_elements);
    OutputTile<A> losses(p.loss, loss_dtype, p.loss_strides);
    for_each_tile(tiling, chunk, [&](const TileElements& tile) {
      const auto loaded = elements.load(tile);
      const auto formula = loss;
      A* out = is_none ? losses.open(tile) : nullptr;
      V sum, count, bad;
      const auto add = [&](int64_t i, int64_t m, V& part) {
        const Element<V> e = loaded.get(i, m);
        const V value = loaded.scale(e, formula.loss(e.x, e.target));
        if (out) value.store(out + i, m);
        part = part + value.keep_first(m);
        if constexpr (!kPlain) count = count + loaded.unless_ignored(e, V(A(1))).keep_first(m);
        if constexpr (kInput == BinaryInput::kProbability) {
          const auto is_good = is_probability(e.x) & is_probability(e.target.value);
          bad = bad + loaded.unless_ignored(e, where(is_good, V(A(0)), V(A(1))));
        }
      };
      for (int64_t begin = 0; begin < tile.n; begin += kElementsPerSum) {
        V part;
        for_each_vector<V>(std::min(kElementsPerSum, tile.n - begin),
                           [&](int64_t i, int64_t m) { add(begin + i, m, part); });
        sum = sum + part;
      }
      totals[index].merge({double(sum.sum()), kPlain ? double(tile.n) : double(count.sum())});
      if (!loaded.all_good || bad.sum() != A(0)) all_good = false;
      if (is_none) losses.store(tile);
    });
  });
  if (all_good) reduce_groups<A>(p, chunks, totals);
  return all_good;
}

template <class A, BinaryInput kInput, bool kPlain>
bool backward(const BinaryCrossEntropyBackward& p, const Factors<A>& factors) {
  using V = Lanes<A>;
  const auto loss = BinaryLoss<V, kInput>::template make<A>(p.options);
  const DType grad_target_dtype = opmath_if(p.grad_target_is_opmath, p.dtype);
  if (p.grad_input) advise_huge_pages(p.grad_input, p.elements * size_of(p.dtype));
  if (p.grad_target) advise_huge_pages(p.grad_target, p.elements * size_of(grad_target_dtype));
  const Tiling tiling = tiling_of(p, 1, p.grad_input_strides, p.grad_target_strides);
  std::atomic<bool> all_good = true;
  chunks_of(tiling, 1).parallel([&](int64_t, const Chunk& chunk) {
    Elements<A, kPlain> elements(p, factors, tiling.tile_elements);
    OutputTile<A> grad_input(p.grad_input, p.dtype, p.grad_input_strides);
    OutputTile<A> grad_target(p.grad_target, grad_target_dtype, p.grad_target_strides);
    for_each_tile(tiling, chunk, [&](const TileElements& tile) {
      const auto loaded = elements.load(tile);
      const auto formula = loss;
      if (!loaded.all_good) all_good = false;
      // Writes the tile of a gradient, factor times derivative(element).
      const auto write = [&](OutputTile<A>& result, auto derivative) {
        A* out = result.open(tile);
        for_each_vector<V>(tile.n, [&](int64_t i, int64_t m) {
          const Element<V> e = loaded.get(i, m);
          loaded.scale(e, derivative(e)).store(out + i, m);
        });
        result.store(tile);
      };
      if (p.grad_input) write(grad_input, [&](const Element<V>& e) { return formula.in_input(e.x, e.target); });
      if (p.grad_target) write(grad_target, [&](const Element<V>& e) { return formula.in_target(e.x, e.target); });
    });
  });
  return all_good;
}

// Calls f(factors, input, plain), with constants of what the kernel for the problem is compiled for.
template <class F>
void dispatch_kernel(const BinaryCrossEntropyProblem& p, F f) {
  dispatch_opmath(p.dtype, [&](auto a) {
    const Factors<decltype(a)> factors(p);
    dispatch_input(p, [&](auto input) { dispatch_form(p, factors, [&](auto plain) { f(factors, input, plain); }); });
  });
}

}  // namespace

int64_t Backend::run(const BinaryCrossEntropyForward& p) {
  bool is_good = true;
  dispatch_kernel(p, [&]<class A>(const Factors<A>& factors, auto input, auto plain) {
    is_good = forward<A, input.value, plain.value>(p, factors);
  });
  return is_good ? kNoBadRow : 0;
}

int64_t Backend::run(const BinaryCrossEntropyBackward& p) {
  bool is_good = true;
  dispatch_kernel(p, [&]<class A>(const Factors<A>& factors, auto input, auto plain) {
    is_good = backward<A, input.value, plain.value>(p, factors);
  });
  return is_good ? kNoBadRow : 0;
}

}  // namespace ce_ext::cpu
