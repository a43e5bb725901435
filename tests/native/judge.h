// All that the kernels compute of a problem, held to the formula in double precision.
#pragma once
#include <algorithm>
#include <string>
#include <tuple>

#include "check.h"
#include "dispatch.h"
#include "driver.h"
#include "formula.h"

namespace mmha {

inline void same_bits(const std::string& what, Buffer& a, Buffer& b) {
  if (a.dtype == DType::kFloat32) same_bits(what, a.value, b.value);
  else same_bits(what, a.half.data(), b.half.data(), a.half.size() * 2);
}

// How tensors lie in memory: `gap` numbers between rows, and, when swapped, the heads of a token side by side.
struct Layout {
  int64_t gap = 0;
  bool swapped = false;
};

// A buffer laid out so. What lies between the rows is NaN and must stay that NaN.
struct Laid {
  Buffer memory;
  Tensor view;
  int64_t batch, heads, rows, width;

  Laid(const Buffer& x, int64_t b, int64_t h, int64_t t, int64_t w, Layout layout)
      : batch(b), heads(h), rows(t), width(w) {
    const int64_t step = w + layout.gap;
    memory.dtype = x.dtype;
    memory.resize(b * h * t * step);
    std::fill(memory.value.begin(), memory.value.end(), kNan);
    std::fill(memory.half.begin(), memory.half.end(), kHole);
    view = {memory.data(), h * t * step, layout.swapped ? step : t * step, layout.swapped ? h * step : step};
    each([&](int64_t at, int64_t from) { copy(x, from, memory, at); });
  }
  void back(Buffer& x) {
    Buffer rest = memory;
    each([&](int64_t at, int64_t to) {
      copy(memory, at, x, to);
      for (int64_t i = 0; i < width; i++) hole(rest, at + i);
    });
    bool untouched = true;
    for (size_t i = 0; i < rest.value.size(); i++)
      untouched &= rest.dtype == DType::kFloat32 ? std::isnan(rest.value[i]) : rest.half[i] == kHole;
    expect(untouched, "written between the rows of a tensor");
  }

 private:
  static constexpr uint16_t kHole = 0xffff;
  template <class F>
  void each(F f) const {
    for (int64_t b = 0; b < batch; b++)
      for (int64_t h = 0; h < heads; h++)
        for (int64_t t = 0; t < rows; t++)
          f(b * view.stride_b + h * view.stride_h + t * view.stride_t, ((b * heads + h) * rows + t) * width);
  }
  void copy(const Buffer& from, int64_t at, Buffer& into, int64_t to) const {
    if (from.dtype == DType::kFloat32) std::copy_n(&from.value[at], width, &into.value[to]);
    else std::copy_n(&from.half[at], width, &into.half[to]);
  }
  static void hole(Buffer& x, int64_t at) {
    if (x.dtype == DType::kFloat32) x.value[at] = kNan;
    else x.half[at] = kHole;
  }
};

// `exact` weights belong to `delta`, which mmha.ops makes.
inline void compute(Problem& p, const Plan& plan, const Doubles& exact, int threads, Layout layout = {}) {
  const Sizes& s = p.c.s;
  const DType dtype = p.q.dtype;
  const Extras* extras = p.view();
  const auto of_queries = [&](const Buffer& x, int64_t width) {
    return Laid(x, s.batch, s.heads, s.q_len, width, layout);
  };
  const auto of_keys = [&](const Buffer& x, int64_t width) {
    return Laid(x, s.batch, s.kv_heads, s.k_len, width, layout);
  };
  Laid q = of_queries(p.q, s.head_dim), dq = of_queries(p.dq, s.head_dim), k = of_keys(p.k, s.head_dim);
  Laid dk = of_keys(p.dk, s.head_dim), v = of_keys(p.v, s.value_dim), dv = of_keys(p.dv, s.value_dim);
  Laid go = of_queries(p.go, s.value_dim), out = of_queries(p.out, s.value_dim);
  Laid rest = of_queries(p.residual, s.value_dim);
  void* residual = dtype == DType::kFloat32 ? nullptr : rest.memory.data();
  forward({s, {}, q.view, k.view, v.view, out.view, residual, p.lse.data(), p.scale, extras, 1, nullptr}, plan, dtype,
          threads);
  row_dot({s.batch, s.heads, s.q_len, s.value_dim, out.view, go.view, residual, p.delta.data()}, dtype, threads);
  BackwardArgs args{};
  args.size = s;
  args.q = q.view;
  args.k = k.view;
  args.v = v.view;
  args.grad_out = go.view;
  args.lse = p.lse.data();
  args.delta = p.delta.data();
  args.grad_q = dq.view;
  args.grad_k = dk.view;
  args.grad_v = dv.view;
  args.scale = p.scale;
  args.extras = extras;
  std::fill(p.weights.value.begin(), p.weights.value.end(), 0.0f);
  std::fill(p.weights.half.begin(), p.weights.half.end(), 0);
  Laid made = of_queries(p.weights, s.k_len);
  weights(args, made.view, plan, dtype, threads);
  if (p.has(kReturned)) {
    const int64_t Tq = s.q_len, Tk = s.k_len;
    args.grad_weights = {p.dweights.data(), dtype, s.heads * Tq * Tk, Tq * Tk, Tk, 1};
    for (size_t i = 0; i < exact.size(); i++)
      if (exact[i] != 0) p.delta[i / Tk] += (float)(exact[i] * p.dweights.value[i]);
  }
  backward(args, plan, dtype, threads);
  for (auto [x, from] : {std::pair{&p.out, &out}, {&p.dq, &dq}, {&p.dk, &dk}, {&p.dv, &dv}, {&p.weights, &made}}) {
    from->back(*x);
    x->decode();
  }
  if (p.has(kTable)) table_gradient(args, plan, dtype, p.dtable.data(), p.dslopes.data(), threads);
  if (p.has(kSinks)) sink_gradient(s, p.lse.data(), p.delta.data(), p.sinks.data(), p.dsinks.data());
  if (!p.has(kAdditives)) return;
  additive_gradient(args, plan, dtype, {p.dfull.data(), s.batch, s.heads, s.q_len, s.k_len}, threads);
  additive_gradient(args, plan, dtype, {p.dkeys.data(), s.batch, 1, 1, s.k_len}, threads);
  additive_gradient(args, plan, dtype, {p.dqueries.data(), 1, s.heads, s.q_len, 1}, threads);
}

// In bits, in spans or, when asked and no row has more than one, in one span a row.
inline Plan plan_of(const Problem& p, bool compact = false) {
  const Sizes& s = p.c.s;
  const int64_t rows = (int64_t)p.dense.size() / s.k_len, batch = rows / s.q_len;
  if (!p.c.bits) {
    RowSpans spans = from_bool(p.dense.data(), rows, s.k_len);
    std::vector<Span> single(rows);
    for (int64_t r = 0; r < rows; r++) {
      compact &= spans.offsets[r + 1] - spans.offsets[r] <= 1;
      if (compact && spans.offsets[r + 1] > spans.offsets[r]) single[r] = spans.spans[spans.offsets[r]];
    }
    if (compact) return Plan({batch, 1, s.q_len}, s.k_len, {}, single, {});
    return Plan({batch, 1, s.q_len}, s.k_len, spans.offsets, spans.spans, {});
  }
  std::vector<uint64_t> bits(rows * ((s.k_len + 63) / 64));
  pack_bits(p.dense.data(), rows, s.k_len, bits.data());
  return Plan({batch, 1, s.q_len}, s.k_len, {}, {}, bits);
}

inline std::string name_of(const Case& c, const std::string& isa, DType dtype, int features, bool poisoned) {
  const Sizes& s = c.s;
  const char* types[] = {"float32", "bfloat16", "float16"};
  return isa + " " + types[(int)dtype] + " B" + std::to_string(s.batch) + " H" + std::to_string(s.heads) + "/" +
         std::to_string(s.kv_heads) + " T" + std::to_string(s.q_len) + "x" + std::to_string(s.k_len) + " D" +
         std::to_string(s.head_dim) + "/" + std::to_string(s.value_dim) + (c.bits ? " bits" : "") + " features " +
         std::to_string(features) + (poisoned ? " poisoned " : " ");
}

// How a problem is computed.
struct Run {
  Layout layout{};
  int threads = 3;
  bool compact = false;
};

// All results of a problem on one thread and on several, by the instruction set in use.
inline void check(const std::string& name, Problem& p, const Run& run) {
  const Case& c = p.c;
  const DType dtype = p.q.dtype;
  const Plan plan = plan_of(p, run.compact);
  const Formula want(p);
  compute(p, plan, want.weights, 1, run.layout);
  // Rounding of the results, of which float32 has many steps; a pair kernel rounds P as well.
  const double limit = dtype == DType::kFloat32 ? 2e-6 : dtype == DType::kFloat16 ? 4e-4 : 3e-3;
  const double floor = dtype == DType::kFloat32 ? 5e-6 : limit, terms = std::sqrt((double)c.s.q_len);
  compare(name + "out", p.out.value, want.out, limit, floor);
  compare(name + "lse", p.lse, want.lse, 2e-6, 5e-6);
  compare(name + "weights", p.weights.value, want.weights, limit, floor);
  compare(name + "dq", p.dq.value, want.dq, limit, floor);
  compare(name + "dk", p.dk.value, want.dk, limit, floor);
  compare(name + "dv", p.dv.value, want.dv, limit, floor);
  // Sums of terms that nearly cancel (a row's scores have gradients that sum to 0).
  if (p.has(kTable)) {
    compare(name + "dtable", p.dtable, want.dtable, limit, floor * terms);
    compare(name + "dslopes", p.dslopes, want.dslopes, limit, floor * terms * 50);
  }
  if (p.has(kSinks)) compare(name + "dsinks", p.dsinks, want.dsinks, limit, floor * terms);
  if (p.has(kAdditives)) {
    compare(name + "dfull", p.dfull, want.dfull, limit, floor);
    compare(name + "dkeys", p.dkeys, want.dkeys, limit, floor * terms);
    // All of a row: exactly 0 with exact arithmetic. A pair kernel rounds P forward and not backward, so that is left.
    compare(name + "dqueries", p.dqueries, want.dqueries, limit, floor * 8 * std::sqrt((double)p.dqueries.size()));
  }
  Problem one = p;
  // One key/value head on three threads takes the split schedules, on one thread the fused: the bits must agree.
  compute(p, plan, want.weights, run.threads, run.layout);
  for (auto [what, a, b] :
       {std::tuple{"out", &one.out, &p.out}, std::tuple{"dq", &one.dq, &p.dq}, std::tuple{"dk", &one.dk, &p.dk},
        std::tuple{"dv", &one.dv, &p.dv}, std::tuple{"weights", &one.weights, &p.weights}})
    same_bits(name + what, *a, *b);
  same_bits(name + "lse", one.lse, p.lse);
  same_bits(name + "dtable", one.dtable, p.dtable);
  same_bits(name + "dkeys", one.dkeys, p.dkeys);
}

}  // namespace mmha
