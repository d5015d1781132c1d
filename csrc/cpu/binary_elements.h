// The elements of a binary cross entropy problem, tile by tile, on lanes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "cpu/elements.h"

namespace ce_ext::cpu {

// The number of an operand that has but one. The input is of `dtype`.
template <class A>
A one_number(const Operand& operand, DType dtype) {
  A result = 1;
  if (!operand.data) return result;
  dispatch_number<A>(operand, dtype, [&](auto number) {
    result = static_cast<A>(*static_cast<const decltype(number)*>(operand.data));
  });
  return result;
}

// What the loss of an element is multiplied by: weight * grad_output / divisor, each for an element or for all.
template <class A>
class Factors {
  using V = Lanes<A>;

 public:
  explicit Factors(const BinaryCrossEntropyProblem& p) : p_(p) {
    for (const Operand* operand : {&p.weight, &p.grad_output, &p.divisor}) {
      if (!operand->is_one_number(p.dims)) {
        is_constant_ = false;
      } else if (p.elements > 0) {
        const A number = one_number<A>(*operand, p.dtype);
        constant_ = operand == &p.divisor ? constant_ / number : product(number, constant_);
      }
    }
  }

  bool is_constant() const { return is_constant_; }
  A constant() const { return constant_; }

  // Those of a tile. `spare` is for one operand at a time.
  void load(const TileElements& tile, A* factors, InputTile<A>& spare) const {
    std::fill_n(factors, tile.n, constant_);
    if (is_constant_) return;
    for (const Operand* operand : {&p_.weight, &p_.grad_output, &p_.divisor}) {
      if (operand->is_one_number(p_.dims)) continue;
      const A* numbers = spare.load(*operand, p_.dtype, tile);
      const bool is_divisor = operand == &p_.divisor;
      for_each_vector<V>(tile.n, [&](int64_t i, int64_t m) {
        const V factor = V::load(factors + i, m, A(0)), number = V::load(numbers + i, m, A(1));
        (is_divisor ? factor / number : product(number, factor)).store(factors + i, m);
      });
    }
  }

 private:
  const BinaryCrossEntropyProblem& p_;
  A constant_ = 1;
  bool is_constant_ = true;
};

// Integers of which float32 has not all.
inline bool is_wide(NumberType type) { return type == NumberType::kInt32 || type == NumberType::kInt64; }

// Targets that are compared as integers, as those of elements: `ignored` where they are the ignored one.
template <class A>
class IntegerTargets {
 public:
  explicit IntegerTargets(const BinaryCrossEntropyProblem& p) : p_(p) {}

  void load(const TileElements& tile, A ignored, A* targets) {
    const int64_t* integers = tile_.load(p_.target, p_.dtype, tile);
    for (int64_t i = 0; i < tile.n; ++i) targets[i] = integers[i] == p_.ignore_index ? ignored : A(integers[i]);
  }

  // Of classes 1 or 0, or NaN for what is none. Returns whether all of them are classes, background or ignored.
  bool load_classes(const TileElements& tile, A ignored, A* targets) {
    const int64_t* classes = tile_.load(p_.target, p_.dtype, tile);
    const int64_t stride = tile.stride(p_.class_numbers);
    bool all_good = true;
    tile.for_each_run(p_.class_numbers, [&](int64_t number, int64_t count) {
      for (const int64_t* end = classes + count; classes < end; ++classes, number += stride) {
        const bool is_ignored = p_.has_ignored && *classes == p_.ignore_index;
        const bool is_good = is_ignored || (*classes >= 0 && *classes <= p_.classes);
        all_good = all_good && is_good;
        *targets++ = is_ignored ? ignored : is_good ? A(*classes == number) : A(NAN);
      }
    });
    return all_good;
  }

 private:
  const BinaryCrossEntropyProblem& p_;
  InputTile<int64_t> tile_;
};

// What the targets of ignored elements are in tiles, which is no other target; NaN, which equals nothing, if none is
// ignored.
template <class A>
A mark_of_ignored(const BinaryCrossEntropyProblem& p) {
  if (p.target_is_class) return A(-1);
  if (p.has_ignored) return is_wide(p.target.type) ? A(0.5) : A(p.ignore_index);
  return p.ignores_nan ? -std::numeric_limits<A>::infinity() : A(NAN);
}

template <class V>
struct Element {
  V x;
  BinaryTarget<V> target;
  V factor;
};

// The elements of a tile: all that a loop over them needs, for it to have in registers. In a plain problem no operand
// but input and target differs from element to element, and no factor is 0.
template <class A, bool kPlain>
struct LoadedTile {
  using V = Lanes<A>;
  using Numbers = std::conditional_t<kPlain, V, const A*>;  // that of all elements, or one of each

  const A *inputs, *targets;
  Numbers factors, pos_weights, alphas;
  V ignored;
  bool all_good;  // whether all targets are such

  // The n elements from the i-th on.
  Element<V> get(int64_t i, int64_t n) const {
    const BinaryTarget<V> target{V::load(targets + i, n, A(0)), load(pos_weights, i, n, A(1)),
                                 alphas_of(load(alphas, i, n, A(1)))};
    return {V::load(inputs + i, n, A(0)), target, load(factors, i, n, A(0))};
  }

  // `value` but for elements that are ignored, where it is 0.
  V unless_ignored(const Element<V>& element, V value) const {
    if constexpr (kPlain) return value;
    return where(element.target.value == ignored, V(A(0)), value);
  }

  // The loss of an element, or a derivative of it, times its factor.
  V scale(const Element<V>& element, V value) const {
    if constexpr (kPlain) return element.factor * value;
    return unless_ignored(element, product(element.factor, value));
  }

 private:
  static V load(V of_all, int64_t, int64_t, A) { return of_all; }
  static V load(const A* numbers, int64_t i, int64_t n, A fill) { return V::load(numbers + i, n, fill); }
};

// Brings the elements of a problem into tiles.
template <class A, bool kPlain>
class Elements {
  using V = Lanes<A>;

 public:
  // Of tiles of at most so many elements.
  Elements(const BinaryCrossEntropyProblem& p, const Factors<A>& factors, int64_t tile_elements)
      : p_(p), factors_(factors), integer_targets_(p), ignored_(mark_of_ignored<A>(p)) {
    if (kPlain) {
      if (p.elements > 0) pos_weight_of_all_ = one_number<A>(p.pos_weight, p.dtype);
      return;
    }
    std::fill_n(pos_weight_.values(), tile_elements, A(1));
    std::fill_n(alpha_.values(), tile_elements, A(p.options.alpha));
    pos_weights_ = pos_weight_.values();
    alphas_ = alpha_.values();
  }

  // The next tile.
  LoadedTile<A, kPlain> load(const TileElements& tile) {
    const A* inputs = input_.load(p_.input, p_.dtype, tile);
    if constexpr (kPlain) {
      const A* targets = target_.load(p_.target, p_.dtype, tile);
      return {inputs,      targets, V(factors_.constant()), V(pos_weight_of_all_), V(A(p_.options.alpha)),
              V(ignored_), true};
    } else {
      const A* targets = target_.values();
      bool all_good = true;
      if (p_.target_is_class) {
        all_good = integer_targets_.load_classes(tile, ignored_, target_.values());
      } else if (p_.has_ignored && is_wide(p_.target.type)) {
        integer_targets_.load(tile, ignored_, target_.values());
      } else {
        targets = target_.load(p_.target, p_.dtype, tile);
        if (p_.ignores_nan) {
          mark_nan(targets, tile.n);
          targets = target_.values();
        }
      }
      factors_.load(tile, factor_.values(), spare_);
      if (p_.pos_weight.data) pos_weights_ = pos_weight_.load(p_.pos_weight, p_.dtype, tile);
      if (p_.class_alpha.data) alphas_ = alpha_.load(p_.class_alpha, p_.dtype, tile);
      return {inputs, targets, factor_.values(), pos_weights_, alphas_, V(ignored_), all_good};
    }
  }

 private:
  // A target that equals the mark by itself is none either way.
  void mark_nan(const A* numbers, int64_t n) {
    const V mark(ignored_), unmarked(p_.has_ignored ? ignored_ : A(NAN));
    for_each_vector<V>(n, [&](int64_t i, int64_t m) {
      const V t = V::load(numbers + i, m, A(0));
      where(t == t, where(t == mark, unmarked, t), mark).store(target_.values() + i, m);
    });
  }

  const BinaryCrossEntropyProblem& p_;
  const Factors<A>& factors_;
  InputTile<A> input_, target_, factor_, pos_weight_, alpha_, spare_;
  IntegerTargets<A> integer_targets_;
  const A *pos_weights_, *alphas_;
  A ignored_;
  A pos_weight_of_all_ = 1;
};

// In the order of the input's memory but for what lies otherwise, be it one of these results.
inline Tiling tiling_of(const BinaryCrossEntropyProblem& p, int64_t groups, const RowStrides& result1,
                        const RowStrides& result2) {
  return Tiling(p.dims, p.elements, groups, size_of(p.dtype),
                {&p.input.strides, &p.target.strides, &p.weight.strides, &p.pos_weight.strides, &p.class_alpha.strides,
                 &p.grad_output.strides, &result1, &result2});
}

template <class A, class F>
void dispatch_form(const BinaryCrossEntropyProblem& p, const Factors<A>& factors, F f) {
  const bool is_plain = factors.is_constant() && factors.constant() != A(0) && p.pos_weight.is_one_number(p.dims) &&
                        !p.class_alpha.data && !p.has_ignored && !p.ignores_nan && !p.target_is_class;
  is_plain ? f(std::true_type()) : f(std::false_type());
}

}  // namespace ce_ext::cpu
