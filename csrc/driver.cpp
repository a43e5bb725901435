#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "pages.h"
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

const TypedKernels& typed(DType dtype) { return kernels().typed[(int)dtype]; }
const CacheKernels& cached(DType dtype) { return kernels().cached[(int)dtype]; }

template <class F>
void run(int64_t count, int threads, F f) {
  parallel_tasks(count, threads, [](void* c, int64_t i, int slot) { (*static_cast<F*>(c))(i, slot); }, &f);
}

}  // namespace

namespace {

// With fewer blocks than this for each thread, the chunks of keys of a block are shared out as well.
constexpr int64_t kFewBlocks = 4;
constexpr int64_t kWorthMerging = 256;

// The chunks of all blocks that see any key of them, then the merges: the bits are those of whole blocks.
void forward_split(const ForwardArgs& args, const Plan& plan, const ForwardKernels& kernel, int threads) {
  const Sizes& s = args.size;
  const int64_t blocks = (s.q_len + kForwardRows - 1) / kForwardRows, heads = s.heads / args.fold;
  const int64_t units = s.batch * heads * blocks, part = chunk_floats(s.value_dim), floats = kernel.scratch_floats(s);
  const auto place = [&](int64_t unit, auto f) {
    f(unit / blocks / heads, unit / blocks % heads * args.fold, unit % blocks);
  };
  struct Part {
    int64_t unit, chunk;
  };
  std::vector<Part> todo;
  std::vector<int64_t> first{0}, rows;  // first[u]: where the parts of unit u begin
  for (int64_t unit = 0; unit < units; unit++) {
    place(unit, [&](int64_t b, int64_t h, int64_t block) {
      rows.clear();
      for (int64_t g = h; g < (plan.grid().heads == 1 ? h + 1 : h + args.fold); g++)
        for (int64_t i = block * kForwardRows; i < std::min(s.q_len, (block + 1) * kForwardRows); i++)
          rows.push_back(mask_group(plan, b, g) * s.q_len + i);
    });
    for (const int32_t chunk : plan.chunks_seen(rows)) todo.push_back({unit, chunk});
    first.push_back((int64_t)todo.size());
  }
  const std::unique_ptr<float[]> parts(new float[todo.size() * part]);
  run((int64_t)todo.size(), threads, [&](int64_t i, int) {
    place(todo[i].unit, [&](int64_t b, int64_t h, int64_t block) {
      kernel.chunk(args, b, h, block, todo[i].chunk, parts.get() + i * part, scratch(floats));
    });
  });
  // A second parallel region costs more than merging a few chunks.
  run(units, (int64_t)todo.size() < kWorthMerging ? 1 : threads, [&](int64_t unit, int) {
    place(unit, [&](int64_t b, int64_t h, int64_t block) {
      kernel.merge(args, b, h, block, parts.get() + first[unit] * part, first[unit + 1] - first[unit], scratch(floats));
    });
  });
}

// How many query heads a block holds: the most that share a key/value head, divide the group evenly and leave room.
int64_t heads_per_block(const ForwardArgs& args, const ForwardKernels& kernel) {
  const Extras* x = args.extras;
  if (x && (x->slopes || x->table || x->additive_count || x->threshold)) return 1;  // they tell the heads apart
  const int64_t group = args.size.heads / args.size.kv_heads, room = kernel.fold_rows / args.size.q_len;
  for (int64_t fold = std::min(group, room); fold > 1; fold--)
    if (group % fold == 0) return fold;
  return 1;
}

}  // namespace

// One task is one block of rows of one head. Heads follow one another, so that K and V of a head stay in the cache,
// and inside a head the heavy blocks come first: what is left at the end is light.
static void forward(ForwardArgs args, const Plan& plan, const ForwardKernels& kernel, int threads) {
  const Sizes& s = args.size;
  args.plan = plan.view();
  const int64_t blocks = plan.blocks(), floats = kernel.scratch_floats(s);
  args.fold = heads_per_block(args, kernel);
  threads = worthwhile(threads, all_pairs(plan, s), s);
  if (threads > 1 && s.batch * s.heads / args.fold * blocks < kFewBlocks * threads && s.k_len > kChunkKeys)
    return forward_split(args, plan, kernel, threads);
  const std::vector<Unit> units = heavy_first(plan, s, args.fold);
  run((int64_t)units.size() * blocks, threads, [&](int64_t i, int) {
    const Unit& u = units[i / blocks];
    const int64_t block = plan.block_order()[mask_group(plan, u.b, u.h) * blocks + i % blocks];
    kernel.block(args, u.b, u.h, block, scratch(floats));
  });
}

void forward(const ForwardArgs& args, const Plan& plan, DType dtype, int threads) {
  forward(args, plan, typed(dtype).forward, threads);
}

void cached_forward(const ForwardArgs& args, const Plan& plan, int threads) {
  forward(args, plan, cached(args.cache->dtype).forward, threads);
}

namespace {

// Floats of scratch a thread may keep: gradients of 16-bit keys are gathered in it as float32.
constexpr int64_t kMostScratch = 1 << 24;

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

void backward_split(const BackwardArgs& args, const Plan& plan, const TypedKernels& kernel, int threads) {
  const Sizes& s = args.size;
  const int64_t floats = kernel.backward_scratch(s, kBackwardKeys), group = s.heads / s.kv_heads;
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

void backward(BackwardArgs args, const Plan& plan, DType dtype, int threads) {
  const TypedKernels& kernel = typed(dtype);
  const Sizes& s = args.size;
  args.plan = plan.view();
  threads = worthwhile(threads, all_pairs(plan, s), s);
  const int64_t group = s.heads / s.kv_heads, floats = kernel.backward_scratch(s, s.k_len);
  const std::vector<Unit> units = heavy_first(plan, s, group);
  if (floats > kMostScratch || !fused_is_faster(units, threads)) return backward_split(args, plan, kernel, threads);
  run((int64_t)units.size(), threads,
      [&](int64_t i, int) { kernel.backward_group(args, units[i].b, units[i].h / group, scratch(floats)); });
}

void row_dot(const RowDotArgs& args, DType dtype, int threads) {
  const TypedKernels& kernel = typed(dtype);
  run(args.batch * args.heads, args.rows * args.width * args.batch * args.heads < kWorthThreads ? 1 : threads,
      [&](int64_t i, int) { kernel.row_dot(args, i / args.heads, i % args.heads); });
}

void weights(BackwardArgs args, const Tensor& out, const Plan& plan, DType dtype, int threads) {
  const TypedKernels& kernel = typed(dtype);
  const Sizes& s = args.size;
  args.plan = plan.view();
  threads = worthwhile(threads, all_pairs(plan, s), s);
  const int64_t blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows, floats = kernel.backward_scratch(s, 0);
  const std::vector<Unit> units = heavy_first(plan, s, 1);
  run((int64_t)units.size() * blocks, threads, [&](int64_t i, int) {
    const Unit& u = units[i / blocks];
    kernel.weights(args, out, u.b, u.h, i % blocks, scratch(floats));
  });
}

// Strips of all (batch row, head, distance of tiles), then per head their sums by key - position, in double.
void table_gradient(BackwardArgs args, const Plan& plan, DType dtype, float* table, float* slopes, int threads) {
  const TypedKernels& kernel = typed(dtype);
  const Sizes& s = args.size;
  args.plan = plan.view();
  const int64_t blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows;
  const int64_t tiles = (s.k_len + kBackwardKeys - 1) / kBackwardKeys, distances = 2 * (tiles - 1) + blocks;
  const int64_t floats = kernel.backward_scratch(s, 0), width = args.extras->table_width;
  const std::unique_ptr<float[]> strips(new float[s.batch * s.heads * distances * kStrip]);
  run(s.batch * s.heads * distances, threads, [&](int64_t i, int) {
    const int64_t unit = i / distances;
    kernel.strip_gradient(args, unit / s.heads, unit % s.heads, i % distances - (blocks - 1), strips.get() + i * kStrip,
                          scratch(floats));
  });
  run(s.heads, threads, [&](int64_t h, int) {
    std::vector<double> sums(table ? width : 0, 0.0);
    double slope = 0.0;
    for (int64_t b = 0; b < s.batch; b++) {
      const int64_t start = args.extras->start ? args.extras->start[b] : s.k_len - s.q_len;
      for (int64_t c = 0; c < distances; c++)
        for (int64_t u = 0; u < kStrip; u++) {
          const float g = strips[((b * s.heads + h) * distances + c) * kStrip + u];
          if (g == 0.0f) continue;
          const int64_t distance = (c - (blocks - 1)) * kBackwardRows + kBackwardKeys - 1 - u - start;
          slope -= (double)std::abs(distance) * g;
          if (table) sums[std::clamp<int64_t>(width / 2 + distance, 0, width - 1)] += g;
        }
    }
    if (slopes) slopes[h] = (float)slope;
    for (int64_t r = 0; table && r < width; r++) table[h * width + r] = (float)sums[r];
  });
}

void additive_gradient(BackwardArgs args, const Plan& plan, DType dtype, const AdditiveGradient& out, int threads) {
  const TypedKernels& kernel = typed(dtype);
  const Sizes& s = args.size;
  args.plan = plan.view();
  const bool rows = out.q_len > 1 || s.q_len == 1, keys = out.k_len > 1 || s.k_len == 1;
  const int64_t blocks = rows ? (s.q_len + kBackwardRows - 1) / kBackwardRows : 1;
  const int64_t tiles = keys ? (s.k_len + kBackwardKeys - 1) / kBackwardKeys : 1;
  const int64_t floats = kernel.backward_scratch(s, 0);
  run(out.batch * out.heads * blocks * tiles, threads, [&](int64_t i, int) {
    const int64_t group = i / (blocks * tiles), place = i % (blocks * tiles);
    kernel.additive_gradient(args, out, group, rows ? place / tiles : -1, keys ? place % tiles : -1, scratch(floats));
  });
}

// d sink[h] = - sum over rows that see a key of exp(sink - lse) * delta, in double, row after row.
void sink_gradient(const Sizes& s, const float* lse, const float* delta, const float* sinks, float* out) {
  for (int64_t h = 0; h < s.heads; h++) {
    double sum = 0.0;
    for (int64_t b = 0; b < s.batch; b++)
      for (int64_t i = (b * s.heads + h) * s.q_len; i < (b * s.heads + h + 1) * s.q_len; i++)
        if (lse[i] != -INFINITY) sum -= std::exp((double)sinks[h] - lse[i]) * delta[i];
    out[h] = (float)sum;
  }
}

namespace {

// All (row, position) pairs of a call that reads or writes tokens: row b has positions [first[b], first[b] + count[b]).
template <class F>
void each_token(int64_t batch, int64_t kv_heads, const int64_t* count, int64_t numbers, int threads, F f) {
  int64_t tokens = 0;
  for (int64_t b = 0; b < batch; b++) tokens += count[b];
  run(batch * kv_heads, tokens * numbers < kWorthThreads ? 1 : threads, [&](int64_t i, int) {
    for (int64_t t = 0; t < count[i / kv_heads]; t++) f(i / kv_heads, i % kv_heads, t);
  });
}

}  // namespace

void cache_write(const CacheView& c, const TokenArgs& x, int threads) {
  const CacheKernels& kernel = cached(c.dtype);
  each_token(x.batch, c.kv_heads, x.count, c.kv_heads * (c.head_dim + c.value_dim), threads,
             [&](int64_t b, int64_t kv, int64_t t) {
               const int64_t at = (b * c.kv_heads + kv) * x.tokens + t;
               kernel.write(c, b, kv, x.first[b] + t, x.keys + at * c.head_dim, x.values + at * c.value_dim);
             });
}

void cache_read(const CacheView& c, const TokenArgs& x, int threads) {
  const CacheKernels& kernel = cached(c.dtype);
  each_token(x.batch, c.kv_heads, x.count, c.kv_heads * (c.head_dim + c.value_dim), threads,
             [&](int64_t b, int64_t kv, int64_t t) {
               const int64_t at = (b * c.kv_heads + kv) * x.tokens + t;
               kernel.read(c, b, kv, x.first[b] + t, x.keys + at * c.head_dim, x.values + at * c.value_dim);
             });
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
  const int64_t part = bytes / (int64_t)sizeof(float) / threads;
  const std::unique_ptr<float[]> data(new float[part * threads]);
  prefer_large_pages(data.get(), bytes);  // as caches are kept
  std::fill_n(data.get(), part * threads, 1.0f);
  volatile float sink = 0;
  double best = 0;
  for (int round = 0; round < 5; round++) {
    const double t = now();
    run(threads, threads, [&](int64_t i, int) { sink = kernel.probe_read(data.get() + i * part, part); });
    best = std::max(best, (double)(part * threads * (int64_t)sizeof(float)) / (now() - t) * 1e-9);
  }
  return best;
}

}  // namespace mmha
