// Caches without Python: tokens are written, read back and attended to, by every instruction set of this machine, in
// each element type and layout.
#include "caches.h"

using namespace mmha;

namespace {

struct Kind {
  const char* name;
  int64_t page;
  bool ring;
  int64_t sinks;
  bool beam;
};
const Kind kKinds[] = {
    {"straight", 0, false, 0, false}, {"ring", 0, true, 0, false},    {"sinks", 0, true, 4, false},
    {"page 1", 1, false, 0, false},   {"page 3", 3, false, 0, false}, {"page 16", 16, false, 0, false},
    {"page 64", 64, false, 0, false}, {"beams", 0, false, 0, true},   {"ring of beams", 0, true, 3, true}};

// Problem n: sizes and features go round so that each meets each. Every second one hides pairs at random, the first
// query, and a key that is NaN where the type has such.
void check_all(const Kind& kind, int64_t q_len, int64_t k_len, int n, bool brief) {
  const int64_t dims[][2] = {{64, 37}, {1, 3}, {37, 64}, {80, 80}, {7, 1}, {256, 16}, {128, 40}};
  const int64_t groups[] = {4, 1, 8, 2, 32};
  const int features[] = {0, kCap | kSinks, kSlopes | kStart | kSinks, kAllFeatures};
  std::mt19937 random(n);
  const auto& [dim, value_dim] = dims[n % 7];
  const int64_t group = groups[n % 5], kv_heads = group > 4 || q_len * k_len > 9000 ? 1 : 2;
  const Sizes s{3, group * kv_heads, kv_heads, q_len, k_len, dim, value_dim};
  const bool holes = random() % 2;
  const int feature = features[random() % 4];
  const int64_t ring = kind.ring ? std::max(q_len, k_len / 2) + 2 : 0;
  // The first of the queries still finds its own.
  const CacheLayout layout{kind.name, kind.page, ring, ring - q_len + 1, kind.sinks, kind.beam};
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < s.batch; b++)
    lengths.push_back(kind.ring && kind.beam ? k_len : std::max<int64_t>(0, k_len - 13 * b));
  const Map m(layout, s, lengths, random);
  Problem base({s, 1.0, false}, DType::kFloat32, feature);
  for (int64_t b = 0; b < s.batch; b++) base.start[b] = m.length[b] - q_len;
  share_pages(m, base);
  base.dense.assign(s.batch * q_len * k_len, 0);
  for (int64_t r = 0; r < s.batch * q_len; r++)
    for (int64_t j = 0; j < k_len; j++)
      base.dense[r * k_len + j] = m.shows(r / q_len, r % q_len, j) &&
                                  !(holes && (j == k_len / 2 || random() % 8 == 0 || (q_len > 1 && r % q_len == 0)));
  // Every type on the small problems; on the others one or two, in turn.
  const int64_t pairs = q_len * k_len;
  const int step = brief || pairs > 2000 ? 4 : pairs > 700 ? 2 : 1;
  for (int d = 0; d < kCacheDTypes; d++) {
    if ((d - n - n / 18) % step) continue;
    Problem p = base;
    if (holes && d != (int)DType::kInt8)
      for (int64_t row = 0; row < s.batch * kv_heads; row++) {
        p.k.value[(row * k_len + k_len / 2) * dim] = kNan;
        p.v.value[(row * k_len + k_len / 2) * value_dim + value_dim - 1] = row % kv_heads ? kNan : INFINITY;
      }
    const char* types[] = {"float32", "bfloat16", "float16", "int8"};
    check_cache(std::string(kind.name) + " " + types[d] + " H" + std::to_string(s.heads) + "/" +
                    std::to_string(kv_heads) + " T" + std::to_string(q_len) + "x" + std::to_string(k_len) + " D" +
                    std::to_string(dim) + "/" + std::to_string(value_dim) + " features " + std::to_string(feature) +
                    (holes ? " holes " : " "),
                m, p, (DType)d, available_isas());
  }
}

}  // namespace

// With the argument "brief", for slow builds: one element type of each problem, and fewer long ones.
int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::string(argv[1]) == "brief";
  int n = 0;
  for (const Kind& kind : kKinds) {
    for (const int64_t q_len : {1, 3, 33})
      for (const int64_t k_len : {1, 15, 17, 255, 257, 1100}) {
        n++;
        if (q_len * k_len > 9000 && brief) continue;
        check_all(kind, q_len, k_len, n, brief);
      }
    std::printf("%s: %d problems so far\n", kind.name, n);
  }
  std::printf("%d failed\n", failures);
  return failures ? 1 : 0;
}
