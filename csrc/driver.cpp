#include "driver.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace mmha {
namespace {

// Waking the pool costs microseconds: below this many multiply-adds one thread is faster.
constexpr int64_t kWorthThreads = 1 << 19;

int64_t mask_group(const Plan& plan, int64_t b, int64_t h) {
  const RowGrid g = plan.grid();
  return (g.batch == 1 ? 0 : b) * g.heads + (g.heads == 1 ? 0 : h);
}

// Visible pairs of head h in row b of the batch.
int64_t pairs(const Plan& plan, int64_t b, int64_t h) { return plan.group_cost()[mask_group(plan, b, h)]; }

int64_t all_pairs(const Plan& plan, const Sizes& s) {
  const RowGrid g = plan.grid();
  const int64_t groups = g.batch * g.heads;
  return groups == 0 ? 0 : plan.visible() * (s.batch * s.heads / groups);
}

int worthwhile(int threads, int64_t visible, const Sizes& s) {
  return visible * (s.head_dim + s.value_dim) < kWorthThreads ? 1 : threads;
}

struct Unit {
  int64_t b, h, cost;
};

// (batch, head) pairs from heavy to light; heads in steps of `group`, their costs added.
std::vector<Unit> heavy_first(const Plan& plan, const Sizes& s, int64_t group) {
  std::vector<Unit> units;
  units.reserve(s.batch * s.heads / group);
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t h = 0; h < s.heads; h += group) {
      int64_t cost = 0;
      for (int64_t g = 0; g < group; g++) cost += pairs(plan, b, h + g);
      units.push_back({b, h, cost});
    }
  std::stable_sort(units.begin(), units.end(), [](const Unit& x, const Unit& y) { return x.cost > y.cost; });
  return units;
}

template <class F>
void run(int64_t count, int threads, F f) {
  parallel_tasks(count, threads, [](void* c, int64_t i, int slot) { (*static_cast<F*>(c))(i, slot); }, &f);
}

}  // namespace

// One task is one block of rows of one head. Heads follow one another, so that K and V of a head stay in the cache,
// and inside a head the heavy blocks come first: what is left at the end is light.
void forward(ForwardArgs args, const Plan& plan, int threads) {
  const KernelTable& kernel = kernels();
  args.plan = plan.view();
  const int64_t blocks = plan.blocks(), floats = kernel.forward_scratch(args.size);
  const std::vector<Unit> units = heavy_first(plan, args.size, 1);
  run((int64_t)units.size() * blocks, worthwhile(threads, all_pairs(plan, args.size), args.size), [&](int64_t i, int) {
    const Unit& u = units[i / blocks];
    const int64_t block = plan.block_order()[mask_group(plan, u.b, u.h) * blocks + i % blocks];
    kernel.forward_block(args, u.b, u.h, block, scratch(floats));
  });
}

namespace {

// The fused schedule does 5/7 of the work of the split one, in as many tasks as there are key/value heads. It is worth
// it while the heaviest task, on its own thread, does not take longer than the split one on all.
bool fused_is_faster(const std::vector<Unit>& units, int threads) {
  if (threads <= 1) return true;
  std::vector<int64_t> load(threads, 0);
  int64_t total = 0;
  for (const Unit& u : units) {
    *std::min_element(load.begin(), load.end()) += u.cost;
    total += u.cost;
  }
  return *std::max_element(load.begin(), load.end()) * 5 * threads <= total * 7;
}

void backward_split(const BackwardArgs& args, const Plan& plan, const KernelTable& kernel, int threads) {
  const Sizes& s = args.size;
  const int64_t floats = kernel.backward_scratch(s), group = s.heads / s.kv_heads;
  const int64_t tiles = (s.k_len + kBackwardKeys - 1) / kBackwardKeys;
  const int64_t blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows;
  const int64_t key_tasks = s.batch * s.kv_heads * tiles;
  const std::vector<Unit> units = heavy_first(plan, s, 1);
  std::vector<RowSpans> seen_by;  // per mask group
  for (int64_t g = 0; g < plan.grid().batch * plan.grid().heads; g++) seen_by.push_back(plan.key_tile_blocks(g));
  run(key_tasks + (int64_t)units.size() * blocks, threads, [&](int64_t i, int) {
    if (i < key_tasks) {
      const int64_t b = i / tiles / s.kv_heads, kv = i / tiles % s.kv_heads, tile = i % tiles;
      thread_local std::vector<BlockRuns> runs;
      runs.resize(group);
      for (int64_t g = 0; g < group; g++) {
        const RowSpans& all = seen_by[mask_group(plan, b, kv * group + g)];
        runs[g] = {all.spans.data() + all.offsets[tile], all.offsets[tile + 1] - all.offsets[tile]};
      }
      kernel.backward_keys(args, b, kv, tile, runs.data(), scratch(floats));
    } else {
      const Unit& u = units[(i - key_tasks) / blocks];
      kernel.backward_queries(args, u.b, u.h, (i - key_tasks) % blocks, scratch(floats));
    }
  });
}

}  // namespace

void backward(BackwardArgs args, const Plan& plan, int threads) {
  const KernelTable& kernel = kernels();
  const Sizes& s = args.size;
  args.plan = plan.view();
  threads = worthwhile(threads, all_pairs(plan, s), s);
  const int64_t group = s.heads / s.kv_heads, floats = kernel.backward_scratch(s);
  const std::vector<Unit> units = heavy_first(plan, s, group);
  if (!fused_is_faster(units, threads)) return backward_split(args, plan, kernel, threads);
  run((int64_t)units.size(), threads,
      [&](int64_t i, int) { kernel.backward_group(args, units[i].b, units[i].h / group, scratch(floats)); });
}

void row_dot(const RowDotArgs& args, int threads) {
  const KernelTable& kernel = kernels();
  run(args.batch * args.heads, args.rows * args.width * args.batch * args.heads < kWorthThreads ? 1 : threads,
      [&](int64_t i, int) { kernel.row_dot(args, i / args.heads, i % args.heads); });
}

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

double probe_fma_gflops(int threads, double seconds) {
  const KernelTable& kernel = kernels();
  volatile float sink = 0;
  double best = 0;
  const int64_t rounds = 1 << 20;
  for (const double start = now(); now() - start < seconds;) {
    const double t = now();
    run(threads, threads, [&](int64_t, int) { sink = kernel.probe_fma(rounds); });
    best = std::max(best, (double)(rounds * kernel.probe_flops_per_round()) * threads / (now() - t) * 1e-9);
  }
  return best;
}

double probe_read_gbytes(int64_t bytes, int threads) {
  const KernelTable& kernel = kernels();
  std::vector<float> data(bytes / sizeof(float), 1.0f);
  const int64_t part = (int64_t)data.size() / threads;
  volatile float sink = 0;
  double best = 0;
  for (int round = 0; round < 5; round++) {
    const double t = now();
    run(threads, threads, [&](int64_t i, int) { sink = kernel.probe_read(data.data() + i * part, part); });
    best = std::max(best, (double)(part * threads * (int64_t)sizeof(float)) / (now() - t) * 1e-9);
  }
  return best;
}

}  // namespace mmha
