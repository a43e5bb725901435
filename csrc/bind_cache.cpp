// Caches: where torch keeps the numbers, and the calls that write, read and attend.
#include "bind.h"

#include <algorithm>
#include <cmath>

#include "bind_arguments.h"
#include "driver.h"
#include "pages.h"
#include "plan.h"
#include "step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using mmha::Plan;
using Bounds = std::tuple<int64_t, int64_t>;
// Addresses of qkv (batch, width) and bias (0: none); dims (0: no rotation), base, interleaved, and address of
// positions (batch, ids; 0: the rows' lengths), ids.
using StepArg = std::tuple<uintptr_t, uintptr_t, int64_t, double, bool, uintptr_t, int64_t>;

// The view of a cache, and what goes along: `rows` of the batch, their lengths, and the tokens a ring shows.
struct Cache {
  mmha::CacheView view{};
  int64_t rows, window;
  int64_t *lengths, *kept;

  // Addresses of keys, values and their scales, and of lengths and kept (rows,); (rows, Hk, D); (Dv, slots, groups);
  // (window, sinks, ring).
  Cache(int dtype, const std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t>& memory,
        const std::tuple<uintptr_t, uintptr_t>& counts, const Dims& heads, const Dims& sizes, const Dims& turning)
      : rows(std::get<0>(heads)),
        window(std::get<0>(turning)),
        lengths(pointer<int64_t>(std::get<0>(counts))),
        kept(pointer<int64_t>(std::get<1>(counts))) {
    view.dtype = dtype_of(dtype, mmha::kCacheDTypes);
    view.keys = pointer<void>(std::get<0>(memory));
    view.values = pointer<void>(std::get<1>(memory));
    view.key_scales = pointer<float>(std::get<2>(memory));
    view.value_scales = pointer<float>(std::get<3>(memory));
    std::tie(std::ignore, view.kv_heads, view.head_dim) = heads;
    std::tie(view.value_dim, view.slots, view.groups) = sizes;
    std::tie(std::ignore, view.sinks, view.ring) = turning;
  }

  // The blocks of pages (rows, width), and the rows to read slots from (rows, slots); 0: none.
  void point(uintptr_t table, int64_t table_width, uintptr_t beam) {
    view.table = pointer<const int32_t>(table);
    view.table_width = table_width;
    view.beam = pointer<const int32_t>(beam);
  }

  mmha::TokenArgs tokens(int64_t count, const int64_t* first, const int64_t* counts, uintptr_t keys,
                         uintptr_t values) const {
    return {rows, count, first, counts, pointer<float>(keys), pointer<float>(values)};
  }

  // counts[b] tokens of row b, from position first[b] on, of keys (rows, Hk, tokens, D) and values, float32.
  void write(uintptr_t keys, uintptr_t values, int64_t count, uintptr_t first, uintptr_t counts, int threads) const {
    nb::gil_scoped_release release;
    mmha::cache_write(view, tokens(count, pointer<int64_t>(first), pointer<int64_t>(counts), keys, values), threads);
  }
  void read(uintptr_t keys, uintptr_t values, int64_t count, uintptr_t first, uintptr_t counts, int threads) const {
    nb::gil_scoped_release release;
    mmha::cache_read(view, tokens(count, pointer<int64_t>(first), pointer<int64_t>(counts), keys, values), threads);
  }

  int64_t longest() const { return rows ? *std::max_element(lengths, lengths + rows) : 0; }

  // Queries q (rows, H, Tq, D) to out (rows, H, Tq, Dv) and lse, all contiguous float32, under a plan, or under
  // `bounds` (left, right), at positions start[b] + i; by default they are the last tokens of each row. Returns a row
  // whose query sees an overwritten key, then nothing is computed; or -1.
  int64_t attend(const Plan* plan, const Bounds& bounds, const std::optional<std::vector<int64_t>>& start,
                 const std::tuple<uintptr_t, uintptr_t, uintptr_t>& memory, int64_t heads, int64_t q_len, float scale,
                 const std::optional<ExtrasArg>& extras, int threads) const {
    Extras extra(extras);
    if (start && (int64_t)start->size() != rows) throw std::invalid_argument("`start`: expected a number a row");
    nb::gil_scoped_release release;
    std::vector<int64_t> first(rows);
    for (int64_t b = 0; b < rows; b++) first[b] = start ? (*start)[b] : lengths[b] - q_len;
    const auto& [q, out, lse] = memory;
    return attend_from(plan, bounds, first, {pointer<float>(q), pointer<float>(out), pointer<float>(lse)}, heads, q_len,
                       scale, extra, threads);
  }

  // The fused step: each row's token is split off qkv, rotated (at its length, unless positions are given), appended,
  // and attends. Returns the number of a row without room, then nothing is written; -2 when int8 cannot hold a number;
  // or -1.
  int64_t step(const StepArg& what, const Bounds& bounds, uintptr_t out, int64_t heads, float scale,
               const std::optional<ExtrasArg>& extras, int threads) {
    Extras extra(extras);
    nb::gil_scoped_release release;
    const int64_t most = view.ring ? INT32_MAX : view.slots;
    for (int64_t b = 0; b < rows; b++)
      if (lengths[b] >= most) return b;
    const std::vector<int64_t> first(lengths, lengths + rows), ones(rows, 1);
    const int64_t D = view.head_dim, Dv = view.value_dim, Hk = view.kv_heads;
    std::vector<float> room(rows * ((heads + Hk) * D + Hk * Dv));
    float *q = room.data(), *k = q + rows * heads * D, *v = k + rows * Hk * D;
    mmha::split_step(split_args(what, heads, first.data(), {q, k, v}));
    if (view.dtype == mmha::DType::kInt8 &&
        !std::all_of(k, k + rows * Hk * (D + Dv), [](float x) { return std::isfinite(x); }))
      return -2;
    mmha::cache_write(view, {rows, 1, first.data(), ones.data(), k, v}, threads);
    for (int64_t b = 0; b < rows; b++) {
      lengths[b]++;
      if (view.ring) kept[b] = std::max(kept[b], lengths[b] - view.ring);
    }
    return attend_from(nullptr, bounds, first, {q, pointer<float>(out), nullptr}, heads, 1, scale, extra, threads);
  }

  // Addresses for q, k, v.
  void split(const StepArg& what, int64_t heads, const std::tuple<uintptr_t, uintptr_t, uintptr_t>& to) const {
    nb::gil_scoped_release release;
    mmha::split_step(split_args(
        what, heads, lengths,
        {pointer<float>(std::get<0>(to)), pointer<float>(std::get<1>(to)), pointer<float>(std::get<2>(to))}));
  }

 private:
  struct Three {
    float *a, *b, *c;
  };

  mmha::StepArgs split_args(const StepArg& what, int64_t heads, const int64_t* at, const Three& to) const {
    const auto& [qkv, bias, dims, base, interleaved, positions, ids] = what;
    return {rows,
            heads,
            view.kv_heads,
            view.head_dim,
            view.value_dim,
            pointer<float>(qkv),
            pointer<float>(bias),
            {dims, base, interleaved, positions ? pointer<int64_t>(positions) : at, ids},
            to.a,
            to.b,
            to.c};
  }

  int64_t attend_from(const Plan* plan, const Bounds& bounds, const std::vector<int64_t>& first, const Three& memory,
                      int64_t heads, int64_t q_len, float scale, Extras& extra, int threads) const {
    const mmha::RowsOf of{rows, q_len, lengths, first.data()};
    std::optional<Plan> made;
    if (!plan)
      plan = &made.emplace(mmha::window_plan(of, std::get<0>(bounds), std::get<1>(bounds), window, view.sinks));
    if (view.ring) {
      const int64_t lost = mmha::forgotten_row(*plan, of, kept, view.sinks);
      if (lost >= 0) return lost;
    }
    extra.view.start = first.data();
    const int64_t D = view.head_dim, Dv = view.value_dim;
    mmha::ForwardArgs args{};
    args.size = {rows, heads, view.kv_heads, q_len, plan->k_len(), D, Dv};
    args.q = {memory.a, heads * q_len * D, q_len * D, D};
    args.out = {memory.b, heads * q_len * Dv, q_len * Dv, Dv};
    args.lse = memory.c;
    args.scale = scale;
    args.extras = extra.get();
    args.cache = &view;
    mmha::cached_forward(args, *plan, threads);
    return -1;
  }
};

}  // namespace

void bind_cache(nb::module_& m) {
  m.def(
      "prefer_large_pages",
      [](uintptr_t address, int64_t bytes) { mmha::prefer_large_pages(pointer<void>(address), bytes); }, "address"_a,
      "bytes"_a);
  nb::class_<Cache>(m, "Cache")
      .def(nb::init<int, const std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t>&,
                    const std::tuple<uintptr_t, uintptr_t>&, const Dims&, const Dims&, const Dims&>(),
           "dtype"_a, "memory"_a, "counts"_a, "heads"_a, "sizes"_a, "turning"_a)
      .def("point", &Cache::point, "table"_a, "table_width"_a, "beam"_a)
      .def("write", &Cache::write, "keys"_a, "values"_a, "tokens"_a, "first"_a, "counts"_a, "threads"_a)
      .def("read", &Cache::read, "keys"_a, "values"_a, "tokens"_a, "first"_a, "counts"_a, "threads"_a)
      .def("longest", &Cache::longest)
      .def("attend", &Cache::attend, "plan"_a.none(), "bounds"_a, "start"_a.none(), "memory"_a, "heads"_a, "q_len"_a,
           "scale"_a, "extras"_a.none(), "threads"_a)
      .def("step", &Cache::step, "what"_a, "bounds"_a, "out"_a, "heads"_a, "scale"_a, "extras"_a.none(), "threads"_a)
      .def("split", &Cache::split, "what"_a, "heads"_a, "to"_a);
}
