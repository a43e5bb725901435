// Caches: where torch keeps the numbers, and the calls that write, read and attend.
#include "bind.h"

#include <limits>

#include "bind_arguments.h"
#include "driver.h"
#include "plan.h"
#include "step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using mmha::Plan;

// The view of a cache, and what goes along: `rows` of the batch, their lengths, and the tokens a ring shows.
struct Cache {
  mmha::CacheView view{};
  int64_t rows, window;
  const int64_t *lengths, *kept;

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

  // Queries q (rows, H, Tq, D) to out (rows, H, Tq, Dv) and lse, all contiguous float32, under a plan, or under
  // `bounds` (left, right; -1 in `bounded` stands for none). Returns a row whose query saw an overwritten key, or -1;
  // then nothing is computed.
  int64_t attend(const Plan* plan, const std::tuple<int64_t, int64_t>& bounds, const std::vector<int64_t>& start,
                 const std::tuple<uintptr_t, uintptr_t, uintptr_t>& memory, int64_t heads, int64_t q_len, float scale,
                 const std::optional<ExtrasArg>& extras, int threads) const {
    const Extras extra(extras);
    if ((int64_t)start.size() != rows) throw std::invalid_argument("`start`: expected a number a row");
    nb::gil_scoped_release release;
    const mmha::RowsOf of{rows, q_len, lengths, start.data()};
    std::optional<Plan> made;
    if (!plan)
      plan = &made.emplace(mmha::window_plan(of, std::get<0>(bounds), std::get<1>(bounds), window, view.sinks));
    if (view.ring) {
      const int64_t lost = mmha::forgotten_row(*plan, of, kept, view.sinks);
      if (lost >= 0) return lost;
    }
    mmha::ForwardArgs args{};
    args.size = {rows, heads, view.kv_heads, q_len, plan->k_len(), view.head_dim, view.value_dim};
    const int64_t D = view.head_dim, Dv = view.value_dim;
    args.q = {pointer<void>(std::get<0>(memory)), heads * q_len * D, q_len * D, D};
    args.out = {pointer<void>(std::get<1>(memory)), heads * q_len * Dv, q_len * Dv, Dv};
    args.lse = pointer<float>(std::get<2>(memory));
    args.scale = scale;
    args.extras = extra.get();
    args.cache = &view;
    mmha::cached_forward(args, *plan, threads);
    return -1;
  }
};

// heads; address of qkv (batch, width) and bias (0: none); dims, base, interleaved, positions (batch, ids), ids;
// addresses for q, k, v.
void split_step(const Cache& cache, int64_t heads, uintptr_t qkv, uintptr_t bias,
                const std::tuple<int64_t, double, bool, uintptr_t, int64_t>& rotary,
                const std::tuple<uintptr_t, uintptr_t, uintptr_t>& to) {
  const auto& [dims, base, interleaved, positions, ids] = rotary;
  const auto& [q, k, v] = to;
  const mmha::CacheView& c = cache.view;
  nb::gil_scoped_release release;
  mmha::split_step({cache.rows,
                    heads,
                    c.kv_heads,
                    c.head_dim,
                    c.value_dim,
                    pointer<float>(qkv),
                    pointer<float>(bias),
                    {dims, base, interleaved, pointer<int64_t>(positions), ids},
                    pointer<float>(q),
                    pointer<float>(k),
                    pointer<float>(v)});
}

}  // namespace

void bind_cache(nb::module_& m) {
  nb::class_<Cache>(m, "Cache")
      .def(nb::init<int, const std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t>&,
                    const std::tuple<uintptr_t, uintptr_t>&, const Dims&, const Dims&, const Dims&>(),
           "dtype"_a, "memory"_a, "counts"_a, "heads"_a, "sizes"_a, "turning"_a)
      .def("point", &Cache::point, "table"_a, "table_width"_a, "beam"_a)
      .def("write", &Cache::write, "keys"_a, "values"_a, "tokens"_a, "first"_a, "counts"_a, "threads"_a)
      .def("read", &Cache::read, "keys"_a, "values"_a, "tokens"_a, "first"_a, "counts"_a, "threads"_a)
      .def("attend", &Cache::attend, "plan"_a.none(), "bounds"_a, "start"_a, "memory"_a, "heads"_a, "q_len"_a,
           "scale"_a, "extras"_a.none(), "threads"_a)
      .def("split_step", &split_step, "heads"_a, "qkv"_a, "bias"_a, "rotary"_a, "to"_a);
}
