// What surrounds the kernels over a cache: the mask of most calls and the split of a fused step, against their
// definitions.
#include "step.h"

#include <algorithm>
#include <complex>
#include <random>

#include "check.h"

using namespace mmha;

namespace {

// window_plan and forgotten_row, pair by pair.
void check_windows() {
  std::mt19937 random(3);
  const int64_t far = INT64_MAX / 2, bounds[] = {0, 1, 2, 5, 17, far};
  for (int n = 0; n < 2000; n++) {
    const int64_t batch = random() % 4, q_len = 1 + random() % 5, window = random() % 2 * (1 + random() % 9);
    const int64_t sinks = window ? random() % 4 : 0, left = bounds[random() % 6], right = bounds[random() % 6];
    std::vector<int64_t> length, start, kept;
    for (int64_t b = 0; b < batch; b++) {
      length.push_back(random() % 24);
      start.push_back((int64_t)(random() % 30) - 5);
      kept.push_back(random() % 24);
    }
    const RowsOf rows{batch, q_len, length.data(), start.data()};
    const Plan plan = window_plan(rows, left, right, window, sinks);
    const std::string name = "window_plan " + std::to_string(n);
    int64_t longest = 0, lost = -1;
    for (const int64_t x : length) longest = std::max(longest, x);
    expect(plan.k_len() == longest && plan.grid().rows() == batch * q_len, name + ": sizes");
    for (int64_t r = batch * q_len - 1; r >= 0; r--) {
      const int64_t b = r / q_len, p = start[b] + r % q_len;
      std::vector<uint8_t> seen(longest), want(longest);
      for (const Span& span : plan.row(r).spans)
        for (int32_t j = span.start; j < span.stop; j++) seen[j]++;
      for (int64_t j = 0; j < longest; j++) {
        want[j] = p - left <= j && j <= p + right && j < length[b] && (!window || j > p - window || j < sinks);
        if (want[j] && j >= sinks && j < kept[b]) lost = b;
      }
      expect(seen == want, name + " row " + std::to_string(r));
    }
    expect(forgotten_row(plan, rows, kept.data(), sinks) == lost, name + ": forgotten_row");
    if (batch < 2) continue;
    // A plan of two heads for all rows of the batch alike.
    const std::vector<int64_t> alike(batch, length[0]);
    std::vector<Span> spans;
    for (int64_t r = 0; r < 2 * q_len; r++) spans.push_back({0, (int32_t)(r % 2 ? length[0] : length[0] / 2)});
    lost = -1;
    for (int64_t b = batch - 1; b >= 0; b--)
      if (std::min<int64_t>(kept[b], spans[1].stop) > sinks) lost = b;
    const Plan shared({1, 2, q_len}, length[0], {}, spans, {});
    expect(forgotten_row(shared, {batch, q_len, alike.data(), start.data()}, kept.data(), sinks) == lost,
           name + ": forgotten_row, shared");
  }
}

// split_step: pairs are complex numbers, turned by exp(i * position * base^(-2n/dims)).
void check_step() {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int n = 0; n < 200; n++) {
    const int64_t batch = 1 + n % 3, Hk = 1 + n % 2, H = Hk * (1 + n % 4), D = 8 + n % 9, Dv = 1 + n % 7,
                  ids = 1 + n % 2;
    const int64_t dims = n % 5 ? n % 3 * 2 * ids : 0, width = (H + Hk) * D + Hk * Dv, part = dims / ids;
    const bool interleaved = n / 2 % 2, has_bias = n / 4 % 2;
    const double base = n % 7 ? 10000.0 : 500.0;
    std::vector<float> x(batch * width), bias(width), q(batch * H * D), k(batch * Hk * D), v(batch * Hk * Dv);
    std::vector<int64_t> positions(batch * ids);
    for (float& f : x) f = normal(random);
    for (float& f : bias) f = normal(random);
    for (int64_t& f : positions) f = random() % 5000;
    split_step({batch,
                H,
                Hk,
                D,
                Dv,
                x.data(),
                has_bias ? bias.data() : nullptr,
                {dims, base, interleaved, positions.data(), ids},
                q.data(),
                k.data(),
                v.data()});
    std::vector<double> want_q, want_k, want_v;
    for (int64_t b = 0; b < batch; b++)
      for (int64_t c = 0; c < width; c++) {
        const auto in = [&](int64_t at) { return (double)(x[b * width + at] + (has_bias ? bias[at] : 0.0f)); };
        std::vector<double>& to = c < H * D ? want_q : c < (H + Hk) * D ? want_k : want_v;
        const int64_t head = c / D * D, d = c % D;
        if (&to == &want_v || d >= dims) {
          to.push_back(in(c));
          continue;
        }
        const int64_t id = d / part, in_part = d % part, pair = interleaved ? in_part / 2 : in_part % (part / 2);
        const int64_t first = head + id * part + (interleaved ? 2 * pair : pair);
        const double angle = (double)positions[b * ids + id] * std::pow(base, -2.0 * (double)pair / (double)part);
        const std::complex<double> turned =
            std::complex<double>(in(first), in(first + (interleaved ? 1 : part / 2))) * std::polar(1.0, angle);
        to.push_back(c == first ? turned.real() : turned.imag());
      }
    const std::string name = "split_step " + std::to_string(n) + " ";
    compare(name + "q", q, want_q, 1e-7, 0);
    compare(name + "k", k, want_k, 1e-7, 0);
    compare(name + "v", v, want_v, 0, 0);
  }
}

}  // namespace

int main() {
  check_windows();
  check_step();
  std::printf("windows and steps: %d failed\n", failures);
  return failures ? 1 : 0;
}
