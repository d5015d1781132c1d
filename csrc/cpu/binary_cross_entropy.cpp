// The CPU drivers of binary cross entropy: elements in chunks, chunks in tiles, and the formula on the lanes of tiles.
#include "losses/binary_cross_entropy.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <atomic>
#include <vector>

#include "cpu/backend.h"
#include "cpu/chunks.h"
#include "cpu/elements.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"
#include "cpu/softmax_by_class.h"

namespace ce_ext::cpu {
namespace {

// The number of an operand that has but one.
template <class S>
opmath_t<S> one_number(const Operand& operand) {
  if (!operand.data) return 1;
  return dispatch<S>(operand.type, [&](auto number) {
    return static_cast<opmath_t<S>>(*static_cast<const decltype(number)*>(operand.data));
  });
}

// What the loss of an element is multiplied by: weight * grad_output / divisor, each for an element or for all.
template <class S>
class Factors {
  using A = opmath_t<S>;

 public:
  explicit Factors(const BinaryCrossEntropyProblem& p) : p_(p) {
    for (const Operand* operand : {&p.weight, &p.grad_output, &p.divisor}) {
      if (!operand->is_one_number(p.dims)) {
        is_constant_ = false;
      } else if (p.elements > 0) {
        const A number = one_number<S>(*operand);
        constant_ = operand == &p.divisor ? constant_ / number : product(number, constant_);
      }
    }
  }

  bool is_constant() const { return is_constant_; }
  A constant() const { return constant_; }

  // Those of a tile. `spare` is for one operand at a time.
  void load(int64_t first, int64_t n, A* factors, InputTile<A>& spare) const {
    std::fill(factors, factors + n, constant_);
    if (is_constant_) return;
    for (const Operand* operand : {&p_.weight, &p_.grad_output, &p_.divisor}) {
      if (operand->is_one_number(p_.dims)) continue;
      const A* numbers = spare.template load<S>(*operand, p_.dims, first, n);
      if (operand == &p_.divisor) {
        for (int64_t i = 0; i < n; ++i) factors[i] /= numbers[i];
      } else {
        for (int64_t i = 0; i < n; ++i) factors[i] = product(numbers[i], factors[i]);
      }
    }
  }

 private:
  const BinaryCrossEntropyProblem& p_;
  A constant_ = 1;
  bool is_constant_ = true;
};

// Targets that are classes as those of their elements: 1 or 0, `ignored`, or NaN for what is none.
template <class S, class A>
class ClassTargets {
 public:
  explicit ClassTargets(const BinaryCrossEntropyProblem& p) : p_(p) {}

  // Whether all of them are classes, background or ignored.
  bool load(int64_t first, int64_t n, A ignored, A* targets) {
    dispatch<S>(p_.target.type, [&](auto number) {
      const auto* data = static_cast<const decltype(number)*>(p_.target.data);
      int64_t* out = classes_;
      for_each_run(p_.dims, p_.target.strides, first, n, [&](int64_t offset, int64_t count) {
        copy_run(out, 1, data + offset, p_.target.strides.strides[p_.dims.ndim - 1], count);
        out += count;
      });
    });
    bool all_good = true;
    int64_t i = 0;
    const int64_t stride = p_.class_numbers.strides[p_.dims.ndim - 1];
    for_each_run(p_.dims, p_.class_numbers, first, n, [&](int64_t number, int64_t count) {
      for (const int64_t end = i + count; i < end; ++i, number += stride) {
        const int64_t target = classes_[i];
        const bool is_ignored = p_.has_ignored && target == p_.ignore_index;
        const bool is_good = is_ignored || (target >= 0 && target <= p_.classes);
        all_good = all_good && is_good;
        targets[i] = is_ignored ? ignored : is_good ? A(target == number) : A(NAN);
      }
    });
    return all_good;
  }

 private:
  const BinaryCrossEntropyProblem& p_;
  int64_t classes_[kElementsPerTile];
};

template <class V>
struct Element {
  V x;
  BinaryTarget<V> target;
  V factor;
};

// Brings the elements of a problem into tiles. In a plain problem no operand but input and target differs from element
// to element.
template <class S, bool kPlain>
class Elements {
  using A = opmath_t<S>;
  using V = Lanes<A>;

 public:
  explicit Elements(const BinaryCrossEntropyProblem& p, const Factors<S>& factors)
      : p_(p), factors_(factors), class_targets_(p), ignored_(p.has_ignored ? A(p.ignore_index) : A(NAN)) {
    if (p.target_is_class) ignored_ = A(-1);
    if (kPlain) {
      if (p.elements > 0) pos_weight_of_all_ = one_number<S>(p.pos_weight);
      return;
    }
    std::fill_n(pos_weight_.values(), kElementsPerTile, A(1));
    std::fill_n(alpha_.values(), kElementsPerTile, A(p.options.alpha));
    pos_weights_ = pos_weight_.values();
    alphas_ = alpha_.values();
  }

  // The next tile. Whether all of its targets are such.
  bool load(int64_t first, int64_t n) {
    inputs_ = input_.template load<S>(p_.input, p_.dims, first, n);
    bool all_good = true;
    if (!kPlain && p_.target_is_class) {
      targets_ = target_.values();
      all_good = class_targets_.load(first, n, ignored_, target_.values());
    } else {
      targets_ = target_.template load<S>(p_.target, p_.dims, first, n);
    }
    if (kPlain) return all_good;
    factors_.load(first, n, factor_.values(), spare_);
    if (p_.pos_weight.data) pos_weights_ = pos_weight_.template load<S>(p_.pos_weight, p_.dims, first, n);
    if (p_.class_alpha.data) alphas_ = alpha_.template load<S>(p_.class_alpha, p_.dims, first, n);
    return all_good;
  }

  // The n elements from the i-th of the tile on.
  Element<V> get(int64_t i, int64_t n) {
    const V x = V::load(inputs_ + i, n, A(0)), target = V::load(targets_ + i, n, A(0));
    if constexpr (kPlain) {
      return {x, {target, V(pos_weight_of_all_), V(A(p_.options.alpha))}, V(factors_.constant())};
    } else {
      const V factor = V::load(factor_.values() + i, n, A(0));
      return {x, {target, V::load(pos_weights_ + i, n, A(1)), V::load(alphas_ + i, n, A(1))}, factor};
    }
  }

  // `value` but for elements that are ignored, where it is 0.
  V unless_ignored(const Element<V>& element, V value) const {
    if constexpr (kPlain) return value;
    return where(element.target.value == V(ignored_), V(A(0)), value);
  }

 private:
  const BinaryCrossEntropyProblem& p_;
  const Factors<S>& factors_;
  InputTile<A> input_, target_, factor_, pos_weight_, alpha_, spare_;
  ClassTargets<S, A> class_targets_;
  const A *inputs_, *targets_, *pos_weights_, *alphas_;
  A ignored_;
  A pos_weight_of_all_ = 1;
};

template <class S, class F>
void dispatch_form(const BinaryCrossEntropyProblem& p, const Factors<S>& factors, F f) {
  const bool is_plain = factors.is_constant() && p.pos_weight.is_one_number(p.dims) && !p.class_alpha.data &&
                        !p.has_ignored && !p.target_is_class;
  is_plain ? f(std::true_type()) : f(std::false_type());
}

// Elements that are added up in one sum, of which a tile adds a few: one long sum loses accuracy, the more where its
// terms are alike.
constexpr int64_t kElementsPerSum = 256;

template <class F>
void for_each_tile(const Chunk& chunk, F f) {
  for (int64_t first = chunk.first, end = first + chunk.rows; first < end; first += kElementsPerTile) {
    f(first, std::min(kElementsPerTile, end - first));
  }
}

// Whether there was nothing that is no target, and no probability.
template <class S, BinaryInput kInput, bool kPlain>
bool forward(const BinaryCrossEntropyForward& p, const Factors<S>& factors) {
  using A = opmath_t<S>;
  using V = Lanes<A>;
  const auto loss = BinaryCrossEntropy<V, kInput>::template make<A>(p.options);
  const Chunks chunks(p.elements, p.groups, kChunkElements);
  std::vector<RowTotals> totals(chunks.count);
  std::atomic<bool> all_good = true;
  const auto run = [&](auto* losses) {
    if (p.reduction == Reduction::kNone) advise_huge_pages(losses, p.elements * sizeof(*losses));
    chunks.parallel([&](int64_t index, const Chunk& chunk) {
      Elements<S, kPlain> elements(p, factors);
      OutputTile<A, std::remove_pointer_t<decltype(losses)>> output;
      for_each_tile(chunk, [&](int64_t first, int64_t n) {
        bool is_good = elements.load(first, n);
        const bool is_none = p.reduction == Reduction::kNone;
        A* out = is_none ? output.open(losses, p.dims, p.loss_strides, first) : nullptr;
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
        for (int64_t begin = 0; begin < n; begin += kElementsPerSum) {
          V part;
          for_each_vector<V>(std::min(kElementsPerSum, n - begin),
                             [&](int64_t i, int64_t m) { add(begin + i, m, part); });
          sum = sum + part;
        }
        totals[index].merge({double(sum.sum()), kPlain ? double(n) : double(count.sum())});
        is_good = is_good && bad.sum() == A(0);
        if (!is_good) all_good = false;
        if (is_none) output.store(losses, p.dims, p.loss_strides, first, n);
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
    Chunks(p.elements, 1, kChunkElements).parallel([&](int64_t, const Chunk& chunk) {
      Elements<S, kPlain> elements(p, factors);
      OutputTile<A, S> input_tile;
      OutputTile<A, std::remove_pointer_t<decltype(grad_target)>> target_tile;
      // Writes a tile of a gradient, factor times derivative(element).
      const auto write = [&](auto* memory, auto& tile, const RowStrides& strides, int64_t first, int64_t n,
                             auto derivative) {
        if (!memory) return;
        A* out = tile.open(memory, p.dims, strides, first);
        for_each_vector<V>(n, [&](int64_t i, int64_t m) {
          const Element<V> e = elements.get(i, m);
          elements.unless_ignored(e, product(e.factor, derivative(e))).store(out + i, m);
        });
        tile.store(memory, p.dims, strides, first, n);
      };
      for_each_tile(chunk, [&](int64_t first, int64_t n) {
        if (!elements.load(first, n)) all_good = false;
        write(grad_input, input_tile, p.grad_input_strides, first, n,
              [&](const Element<V>& e) { return loss.in_input(e.x, e.target); });
        write(grad_target, target_tile, p.grad_target_strides, first, n,
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
