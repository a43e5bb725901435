// The native core without Python: every instruction set of this machine against the formula in double precision, over
// head sizes, masks, groups and poisoned numbers. Built plain, under sanitizers, and for emulated targets (run.sh).
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "driver.h"

using namespace mmha;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
int failures = 0;

struct Case {
  Sizes s;
  double density;  // of random visible pairs; < 0 is causal, aligned bottom right
  bool bits;
};

struct Data {
  std::vector<float> q, k, v, go, out, lse, delta, dq, dk, dv;
  std::vector<uint8_t> dense;
};

Tensor tensor(std::vector<float>& x, int64_t heads, int64_t rows, int64_t width) {
  return {x.data(), heads * rows * width, rows * width, width};
}

Data make(const Case& c) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;
  const Sizes& s = c.s;
  Data d;
  auto fill = [&](std::vector<float>& x, int64_t n) {
    x.resize(n);
    for (float& f : x) f = normal(random);
  };
  fill(d.q, s.batch * s.heads * s.q_len * s.head_dim);
  fill(d.k, s.batch * s.kv_heads * s.k_len * s.head_dim);
  fill(d.v, s.batch * s.kv_heads * s.k_len * s.value_dim);
  fill(d.go, s.batch * s.heads * s.q_len * s.value_dim);
  d.out.resize(d.go.size());
  d.lse.resize(s.batch * s.heads * s.q_len);
  d.delta = d.lse;
  d.dq = d.q;
  d.dk = d.k;
  d.dv = d.v;
  d.dense.resize(s.q_len * s.k_len);
  for (int64_t i = 0; i < s.q_len; i++)
    for (int64_t j = 0; j < s.k_len; j++)
      d.dense[i * s.k_len + j] = c.density < 0 ? j <= i + s.k_len - s.q_len : uniform(random) < c.density;
  for (int64_t j = 0; j < s.k_len; j++) d.dense[j] = 0;  // the first row sees nothing
  return d;
}

// Numbers that no visible pair touches are made NaN: a key that nobody sees, and the first query row.
void poison(const Case& c, Data& d) {
  const Sizes& s = c.s;
  for (int64_t h = 0; h < s.batch * s.heads; h++) {
    for (int64_t x = 0; x < s.head_dim; x++) d.q[h * s.q_len * s.head_dim + x] = kNan;
    for (int64_t x = 0; x < s.value_dim; x++) d.go[h * s.q_len * s.value_dim + x] = kNan;
  }
  const int64_t hidden = s.k_len / 2;
  for (int64_t i = 0; i < s.q_len; i++) d.dense[i * s.k_len + hidden] = 0;
  for (int64_t h = 0; h < s.batch * s.kv_heads; h++) {
    for (int64_t x = 0; x < s.head_dim; x++) d.k[(h * s.k_len + hidden) * s.head_dim + x] = kNan;
    for (int64_t x = 0; x < s.value_dim; x++) d.v[(h * s.k_len + hidden) * s.value_dim + x] = INFINITY;
  }
}

struct Reference {
  std::vector<double> out, lse, dq, dk, dv;
};

Reference reference(const Case& c, const Data& d, double scale) {
  const Sizes& s = c.s;
  const int64_t group = s.heads / s.kv_heads, D = s.head_dim, V = s.value_dim;
  Reference r;
  r.out.assign(d.out.size(), 0);
  r.lse.assign(d.lse.size(), -INFINITY);
  r.dq.assign(d.q.size(), 0);
  r.dk.assign(d.k.size(), 0);
  r.dv.assign(d.v.size(), 0);
  std::vector<double> p(s.k_len), dp(s.k_len);
  for (int64_t bh = 0; bh < s.batch * s.heads; bh++) {
    const int64_t kv = bh / s.heads * s.kv_heads + bh % s.heads / group;
    const float *k = &d.k[kv * s.k_len * D], *v = &d.v[kv * s.k_len * V];
    for (int64_t i = 0; i < s.q_len; i++) {
      const uint8_t* seen = &d.dense[i * s.k_len];
      const float *q = &d.q[(bh * s.q_len + i) * D], *go = &d.go[(bh * s.q_len + i) * V];
      double top = -INFINITY, sum = 0, delta = 0;
      for (int64_t j = 0; j < s.k_len; j++) {
        if (!seen[j]) continue;
        p[j] = 0;
        for (int64_t x = 0; x < D; x++) p[j] += scale * q[x] * k[j * D + x];
        top = std::max(top, p[j]);
      }
      if (top == -INFINITY) continue;
      for (int64_t j = 0; j < s.k_len; j++)
        if (seen[j]) sum += p[j] = std::exp(p[j] - top);
      r.lse[bh * s.q_len + i] = top + std::log(sum);
      for (int64_t j = 0; j < s.k_len; j++) {
        if (!seen[j]) continue;
        p[j] /= sum;
        dp[j] = 0;
        for (int64_t x = 0; x < V; x++) {
          r.out[(bh * s.q_len + i) * V + x] += p[j] * v[j * V + x];
          dp[j] += (double)go[x] * v[j * V + x];
          r.dv[(kv * s.k_len + j) * V + x] += p[j] * go[x];
        }
        delta += p[j] * dp[j];
      }
      for (int64_t j = 0; j < s.k_len; j++) {
        if (!seen[j]) continue;
        const double ds = scale * p[j] * (dp[j] - delta);
        for (int64_t x = 0; x < D; x++) {
          r.dq[(bh * s.q_len + i) * D + x] += ds * k[j * D + x];
          r.dk[(kv * s.k_len + j) * D + x] += ds * q[x];
        }
      }
    }
  }
  return r;
}

// Relative to the norm of what is expected (a row with one key has gradients that cancel to 0); infinities must agree.
void compare(const std::string& what, const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0, norm = 0;
  bool same = true;
  for (size_t i = 0; i < got.size(); i++) {
    if (std::isinf(want[i]) || !std::isfinite(got[i])) {
      same &= (double)got[i] == want[i];
      continue;
    }
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (same && std::sqrt(error) <= 2e-6 * std::sqrt(norm) + 5e-6) return;
  std::printf("FAILED %s: relative error %.2e%s\n", what.c_str(), std::sqrt(error / norm),
              same ? "" : ", not finite where it should be");
  failures++;
}

void same_bits(const std::string& what, const std::vector<float>& a, const std::vector<float>& b) {
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return;
  std::printf("FAILED %s: bits differ\n", what.c_str());
  failures++;
}

void compute(const Case& c, Data& d, const Plan& plan, float scale, int threads) {
  const Sizes& s = c.s;
  const Tensor q = tensor(d.q, s.heads, s.q_len, s.head_dim), k = tensor(d.k, s.kv_heads, s.k_len, s.head_dim);
  const Tensor v = tensor(d.v, s.kv_heads, s.k_len, s.value_dim), go = tensor(d.go, s.heads, s.q_len, s.value_dim);
  const Tensor out = tensor(d.out, s.heads, s.q_len, s.value_dim);
  forward({s, {}, q, k, v, out, d.lse.data(), scale}, plan, threads);
  row_dot({s.batch, s.heads, s.q_len, s.value_dim, out, go, d.delta.data()}, threads);
  backward({s,
            {},
            q,
            k,
            v,
            go,
            d.lse.data(),
            d.delta.data(),
            tensor(d.dq, s.heads, s.q_len, s.head_dim),
            tensor(d.dk, s.kv_heads, s.k_len, s.head_dim),
            tensor(d.dv, s.kv_heads, s.k_len, s.value_dim),
            scale},
           plan, threads);
}

void check(const Case& c, const std::string& isa, bool poisoned) {
  const Sizes& s = c.s;
  const float scale = 1.0f / std::sqrt((float)s.head_dim);
  Data d = make(c);
  if (poisoned) poison(c, d);
  RowSpans spans = from_bool(d.dense.data(), s.q_len, s.k_len);
  std::vector<uint64_t> bits;
  if (c.bits) {
    bits.resize(s.q_len * ((s.k_len + 63) / 64));
    pack_bits(d.dense.data(), s.q_len, s.k_len, bits.data());
    spans = RowSpans{{}, {}};
  }
  const Plan plan({1, 1, s.q_len}, s.k_len, spans.offsets, spans.spans, bits);
  const std::string name = isa + " B" + std::to_string(s.batch) + " H" + std::to_string(s.heads) + "/" +
                           std::to_string(s.kv_heads) + " T" + std::to_string(s.q_len) + "x" + std::to_string(s.k_len) +
                           " D" + std::to_string(s.head_dim) + "/" + std::to_string(s.value_dim) +
                           (c.bits ? " bits" : "") + (poisoned ? " poisoned " : " ");
  const Reference want = reference(c, d, scale);
  compute(c, d, plan, scale, 1);
  compare(name + "out", d.out, want.out);
  compare(name + "lse", d.lse, want.lse);
  compare(name + "dq", d.dq, want.dq);
  compare(name + "dk", d.dk, want.dk);
  compare(name + "dv", d.dv, want.dv);
  const Data one = d;
  // One key/value head on three threads takes the split backward, on one thread the fused: the bits must agree.
  compute(c, d, plan, scale, 3);
  same_bits(name + "out", one.out, d.out);
  same_bits(name + "dq", one.dq, d.dq);
  same_bits(name + "dk", one.dk, d.dk);
  same_bits(name + "dv", one.dv, d.dv);
}

}  // namespace

int main() {
  const std::vector<Case> cases = {
      {{1, 1, 1, 1, 1, 1, 1}, 1.0, false},       {{2, 3, 3, 37, 41, 5, 3}, 0.5, false},
      {{1, 4, 2, 67, 131, 64, 64}, -1, false},   {{1, 1, 1, 131, 601, 33, 7}, -1, false},
      {{1, 2, 1, 97, 523, 16, 129}, 0.1, true},  {{1, 1, 1, 261, 263, 31, 17}, 0.9, true},
      {{1, 1, 1, 129, 300, 512, 40}, -1, false}, {{2, 2, 1, 100, 100, 128, 128}, 0.0, false},
      {{1, 1, 1, 71, 1025, 8, 9}, 0.0001, true},
  };
  int count = 0;
  for (const std::string& isa : available_isas()) {
    select_isa(isa);
    for (const Case& c : cases)
      for (const bool poisoned : {false, true}) {
        check(c, isa, poisoned);
        count++;
      }
    std::printf("%s: %zu cases, twice\n", isa.c_str(), cases.size());
  }
  std::printf("%d passed, %d failed\n", count - std::min(count, failures), failures);
  return failures ? 1 : 0;
}
