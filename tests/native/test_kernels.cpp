// The native core without Python: every instruction set of this machine against the formula in double precision, over
// element types, head sizes, masks, groups, extras and poisoned numbers. Built plain, under sanitizers, and for
// emulated targets (run.sh).
#include <algorithm>
#include <cstdio>
#include <string>
#include <tuple>

#include "check.h"
#include "dispatch.h"
#include "driver.h"
#include "formula.h"

using namespace mmha;

namespace {

using mmha::same_bits;
void same_bits(const std::string& what, Buffer& a, Buffer& b) {
  if (a.dtype == DType::kFloat32) same_bits(what, a.value, b.value);
  else same_bits(what, a.half.data(), b.half.data(), a.half.size() * 2);
}

// `exact` weights belong to `delta`, which mmha.ops makes.
void compute(Problem& p, const Plan& plan, const Doubles& exact, int threads) {
  const Sizes& s = p.c.s;
  const DType dtype = p.q.dtype;
  const Extras* extras = p.view();
  const Tensor q = tensor(p.q, s.heads, s.q_len, s.head_dim), k = tensor(p.k, s.kv_heads, s.k_len, s.head_dim);
  const Tensor v = tensor(p.v, s.kv_heads, s.k_len, s.value_dim), go = tensor(p.go, s.heads, s.q_len, s.value_dim);
  const Tensor out = tensor(p.out, s.heads, s.q_len, s.value_dim);
  void* residual = dtype == DType::kFloat32 ? nullptr : p.residual.data();
  forward({s, {}, q, k, v, out, residual, p.lse.data(), p.scale, extras, 1, nullptr}, plan, dtype, threads);
  row_dot({s.batch, s.heads, s.q_len, s.value_dim, out, go, residual, p.delta.data()}, dtype, threads);
  BackwardArgs args{};
  args.size = s;
  args.q = q;
  args.k = k;
  args.v = v;
  args.grad_out = go;
  args.lse = p.lse.data();
  args.delta = p.delta.data();
  args.grad_q = tensor(p.dq, s.heads, s.q_len, s.head_dim);
  args.grad_k = tensor(p.dk, s.kv_heads, s.k_len, s.head_dim);
  args.grad_v = tensor(p.dv, s.kv_heads, s.k_len, s.value_dim);
  args.scale = p.scale;
  args.extras = extras;
  std::fill(p.weights.value.begin(), p.weights.value.end(), 0.0f);
  std::fill(p.weights.half.begin(), p.weights.half.end(), 0);
  weights(args, tensor(p.weights, s.heads, s.q_len, s.k_len), plan, dtype, threads);
  if (p.has(kReturned)) {
    const int64_t Tq = s.q_len, Tk = s.k_len;
    args.grad_weights = {p.dweights.data(), dtype, s.heads * Tq * Tk, Tq * Tk, Tk, 1};
    for (size_t i = 0; i < exact.size(); i++)
      if (exact[i] != 0) p.delta[i / Tk] += (float)(exact[i] * p.dweights.value[i]);
  }
  backward(args, plan, dtype, threads);
  for (Buffer* x : {&p.out, &p.dq, &p.dk, &p.dv, &p.weights}) x->decode();
  if (p.has(kTable)) table_gradient(args, plan, dtype, p.dtable.data(), p.dslopes.data(), threads);
  if (p.has(kSinks)) sink_gradient(s, p.lse.data(), p.delta.data(), p.sinks.data(), p.dsinks.data());
  if (!p.has(kAdditives)) return;
  additive_gradient(args, plan, dtype, {p.dfull.data(), s.batch, s.heads, s.q_len, s.k_len}, threads);
  additive_gradient(args, plan, dtype, {p.dkeys.data(), s.batch, 1, 1, s.k_len}, threads);
  additive_gradient(args, plan, dtype, {p.dqueries.data(), 1, s.heads, s.q_len, 1}, threads);
}

Plan plan_of(const Problem& p) {
  const Sizes& s = p.c.s;
  if (!p.c.bits) {
    RowSpans spans = from_bool(p.dense.data(), s.q_len, s.k_len);
    return Plan({1, 1, s.q_len}, s.k_len, spans.offsets, spans.spans, {});
  }
  std::vector<uint64_t> bits(s.q_len * ((s.k_len + 63) / 64));
  pack_bits(p.dense.data(), s.q_len, s.k_len, bits.data());
  return Plan({1, 1, s.q_len}, s.k_len, {}, {}, bits);
}

std::string name_of(const Case& c, const std::string& isa, DType dtype, int features, bool poisoned) {
  const Sizes& s = c.s;
  const char* types[] = {"float32", "bfloat16", "float16"};
  return isa + " " + types[(int)dtype] + " B" + std::to_string(s.batch) + " H" + std::to_string(s.heads) + "/" +
         std::to_string(s.kv_heads) + " T" + std::to_string(s.q_len) + "x" + std::to_string(s.k_len) + " D" +
         std::to_string(s.head_dim) + "/" + std::to_string(s.value_dim) + (c.bits ? " bits" : "") + " features " +
         std::to_string(features) + (poisoned ? " poisoned " : " ");
}

void check(const Case& c, const std::string& isa, DType dtype, int features, bool poisoned) {
  Problem p(c, dtype, features);
  if (poisoned) p.poison();
  const Plan plan = plan_of(p);
  const std::string name = name_of(c, isa, dtype, features, poisoned);
  const Formula want(p);
  compute(p, plan, want.weights, 1);
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
  compute(p, plan, want.weights, 3);
  for (auto [what, a, b] :
       {std::tuple{"out", &one.out, &p.out}, std::tuple{"dq", &one.dq, &p.dq}, std::tuple{"dk", &one.dk, &p.dk},
        std::tuple{"dv", &one.dv, &p.dv}, std::tuple{"weights", &one.weights, &p.weights}})
    same_bits(name + what, *a, *b);
  same_bits(name + "lse", one.lse, p.lse);
  same_bits(name + "dtable", one.dtable, p.dtable);
  same_bits(name + "dkeys", one.dkeys, p.dkeys);
}

}  // namespace

// With the argument "brief", for slow builds: all features or none, poisoned, without the dtype that differs least.
int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::string(argv[1]) == "brief";
  const std::vector<Case> cases = {
      {{1, 1, 1, 1, 1, 1, 1}, 1.0, false},       {{2, 3, 3, 37, 41, 5, 3}, 0.5, false},
      {{1, 4, 2, 67, 131, 64, 64}, -1, false},   {{1, 1, 1, 131, 601, 33, 7}, -1, false},
      {{1, 2, 1, 97, 523, 16, 129}, 0.1, true},  {{1, 1, 1, 261, 263, 31, 17}, 0.9, true},
      {{1, 1, 1, 129, 300, 512, 40}, -1, false}, {{2, 2, 1, 100, 100, 128, 128}, 0.0, false},
      {{1, 1, 1, 71, 1025, 8, 9}, 0.0001, true}, {{1, 1, 1, 9, 3001, 24, 48}, -1, false},
      {{1, 2, 2, 40, 2100, 16, 16}, 0.02, true}, {{1, 8, 2, 2, 2500, 24, 40}, -1, false},
      {{2, 6, 2, 1, 71, 20, 12}, 0.7, true},
  };
  const int features[] = {0,      kCap,     kSlopes | kTable, kTable | kStart, kAdditives,
                          kSinks, kDropout, kReturned,        kAllFeatures};
  int count = 0;
  for (const std::string& isa : available_isas()) {
    select_isa(isa);
    for (const Case& c : cases)
      for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16})
        for (const int f : features)
          for (const bool poisoned : {false, true}) {
            // Every feature on the small problems; on the others none, and all of them at once.
            if (f && f != kAllFeatures && (brief || c.s.q_len * c.s.k_len > 10000)) continue;
            if (brief && (!poisoned || dtype == DType::kFloat16)) continue;
            check(c, isa, dtype, f, poisoned);
            count++;
          }
    std::printf("%s: %d cases so far\n", isa.c_str(), count);
  }
  std::printf("%d passed, %d failed\n", count - std::min(count, failures), failures);
  return failures ? 1 : 0;
}
