// The Python module mmha._kernels: spans and plans, whose arrays come from numpy; attention and caches are in
// bind_attention.cpp and bind_cache.cpp.
#include "bind.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "dispatch.h"
#include "driver.h"
#include "parallel.h"
#include "plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using mmha::Plan;
using mmha::RowGrid;
using mmha::RowSpans;
using mmha::Span;

template <class T, int N>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Offsets = Array<int64_t, 1>;
using SpanArray = Array<int32_t, 2>;
using Bools = Array<bool, 2>;
using Words = Array<uint64_t, 2>;
using Spans = std::tuple<Offsets, SpanArray>;
using Dims = std::tuple<int64_t, int64_t, int64_t>;

// Hands a vector to numpy without a copy.
template <class T, class Element>
nb::ndarray<nb::numpy, Element> to_numpy(std::vector<T>&& values, std::vector<size_t> shape) {
  auto* owned = new std::vector<T>(std::move(values));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  static Element none;  // numpy wants a pointer even to nothing
  Element* data = owned->empty() ? &none : reinterpret_cast<Element*>(owned->data());
  return nb::ndarray<nb::numpy, Element>(data, shape.size(), shape.data(), owner);
}

nb::tuple to_tuple(RowSpans&& s) {
  const size_t rows = s.offsets.size(), count = s.spans.size();
  return nb::make_tuple(to_numpy<int64_t, int64_t>(std::move(s.offsets), {rows}),
                        to_numpy<Span, int32_t>(std::move(s.spans), {count, 2}));
}

void check_spans(const Spans& s, int64_t rows, const char* name) {
  const auto& [offsets, spans] = s;
  const int64_t count = (int64_t)spans.shape(0);
  bool ok = (int64_t)offsets.shape(0) == rows + 1 && spans.shape(1) == 2 && offsets.data()[0] == 0 &&
            offsets.data()[rows] == count;
  for (int64_t r = 0; ok && r < rows; r++) ok = offsets.data()[r] <= offsets.data()[r + 1];
  if (!ok)
    throw std::invalid_argument("`" + std::string(name) + "`: expected offsets of " + std::to_string(rows) +
                                " rows, ascending from 0 to the number of spans, and spans of shape (n, 2)");
}

mmha::RowSpansView view(const Spans& s) {
  return {std::get<0>(s).data(), reinterpret_cast<const Span*>(std::get<1>(s).data())};
}

RowGrid grid_of(const Dims& d) { return {std::get<0>(d), std::get<1>(d), std::get<2>(d)}; }

nb::tuple combine(const std::string& op, const Spans& a, const Spans& b, const Dims& dims, const Dims& a_dims,
                  const Dims& b_dims) {
  if (op != "and" && op != "or") throw std::invalid_argument("`op`: expected 'and' or 'or', got '" + op + "'");
  const RowGrid grid = grid_of(dims), ga = grid_of(a_dims), gb = grid_of(b_dims);
  for (const RowGrid& g : {ga, gb})
    if ((g.batch != 1 && g.batch != grid.batch) || (g.heads != 1 && g.heads != grid.heads) ||
        (g.q_len != 1 && g.q_len != grid.q_len))
      throw std::invalid_argument("`dims`: expected operands that broadcast to the result");
  check_spans(a, ga.rows(), "a");
  check_spans(b, gb.rows(), "b");
  RowSpans out;
  {
    nb::gil_scoped_release release;
    out = mmha::combine(op == "and" ? mmha::Combine::kAnd : mmha::Combine::kOr, view(a), ga, view(b), gb, grid);
  }
  return to_tuple(std::move(out));
}

nb::tuple complement(const Spans& a, int64_t k_len) {
  const int64_t rows = (int64_t)std::get<0>(a).shape(0) - 1;
  check_spans(a, rows, "a");
  return to_tuple(mmha::complement(view(a), rows, k_len));
}

nb::tuple from_bool(const Bools& rows) {
  RowSpans out;
  {
    nb::gil_scoped_release release;
    out = mmha::from_bool(reinterpret_cast<const uint8_t*>(rows.data()), rows.shape(0), rows.shape(1));
  }
  return to_tuple(std::move(out));
}

nb::ndarray<nb::numpy, uint64_t> pack_bits(const Bools& rows) {
  const size_t words = (rows.shape(1) + 63) / 64;
  std::vector<uint64_t> bits(rows.shape(0) * words);
  {
    nb::gil_scoped_release release;
    mmha::pack_bits(reinterpret_cast<const uint8_t*>(rows.data()), rows.shape(0), rows.shape(1), bits.data());
  }
  return to_numpy<uint64_t, uint64_t>(std::move(bits), {rows.shape(0), words});
}

nb::ndarray<nb::numpy, uint64_t> spans_to_bits(const Offsets& offsets, const SpanArray& spans, int64_t k_len) {
  const int64_t rows = (int64_t)offsets.shape(0) - 1;
  const Spans s{offsets, spans};
  check_spans(s, rows, "spans");
  for (size_t i = 0; i < spans.shape(0); i++)
    if (spans.data()[2 * i] < 0 || spans.data()[2 * i + 1] > k_len)
      throw std::invalid_argument("`spans`: expected runs within 0 to " + std::to_string(k_len));
  const size_t words = (k_len + 63) / 64;
  std::vector<uint64_t> bits(rows * words);
  mmha::spans_to_bits(view(s), rows, k_len, bits.data());
  return to_numpy<uint64_t, uint64_t>(std::move(bits), {(size_t)rows, words});
}

void make_plan(Plan* self, int64_t batch, int64_t heads, int64_t q_len, int64_t k_len,
               const std::optional<Offsets>& offsets, const std::optional<SpanArray>& spans,
               const std::optional<Words>& bits) {
  if (spans.has_value() == bits.has_value())
    throw std::invalid_argument("`bits`: expected either spans or bits, got both or neither");
  std::vector<int64_t> o;
  std::vector<Span> s;
  std::vector<uint64_t> w;
  if (offsets) o.assign(offsets->data(), offsets->data() + offsets->size());
  if (spans) {
    if (spans->shape(1) != 2) throw std::invalid_argument("`spans`: expected shape (n, 2)");
    const Span* first = reinterpret_cast<const Span*>(spans->data());
    s.assign(first, first + spans->shape(0));
  }
  if (bits) w.assign(bits->data(), bits->data() + bits->size());
  nb::gil_scoped_release release;
  new (self) Plan({batch, heads, q_len}, k_len, std::move(o), std::move(s), std::move(w));
}

std::vector<std::pair<int32_t, int32_t>> plan_row(const Plan& plan, int64_t row) {
  std::vector<std::pair<int32_t, int32_t>> out;
  for (const Span& s : plan.row(row).spans) out.emplace_back(s.start, s.stop);
  return out;
}

nb::ndarray<nb::numpy, uint8_t> plan_tiles(const Plan& plan, int64_t q_tile, int64_t k_tile) {
  const RowGrid g = plan.grid();
  std::vector<uint8_t> tiles = plan.tiles(q_tile, k_tile);
  const size_t nq = (g.q_len + q_tile - 1) / q_tile, nk = (plan.k_len() + k_tile - 1) / k_tile;
  return to_numpy<uint8_t, uint8_t>(std::move(tiles), {(size_t)g.batch, (size_t)g.heads, nq, nk});
}

}  // namespace

NB_MODULE(_kernels, m) {
  // Plans in caches live until the process ends, and nanobind would report each.
  nb::set_leak_warnings(false);
  m.doc() = "The compiled kernels of mmha. Private: use mmha.attention and mmha.masks.";

  m.def("isa", [] { return std::string(mmha::kernels().name); });
  m.def("compiled", &mmha::compiled_isas);
  m.def("available", &mmha::available_isas);
  m.def("select", &mmha::select_isa, "name"_a);
  m.def("pool", [] { return std::string(mmha::pool_name()); });

  m.def("combine", &combine, "op"_a, "a"_a.noconvert(), "b"_a.noconvert(), "dims"_a, "a_dims"_a, "b_dims"_a);
  m.def("complement", &complement, "a"_a.noconvert(), "k_len"_a);
  m.def("from_bool", &from_bool, "rows"_a.noconvert());
  m.def("pack_bits", &pack_bits, "rows"_a.noconvert());
  m.def("spans_to_bits", &spans_to_bits, "offsets"_a.noconvert(), "spans"_a.noconvert(), "k_len"_a);

  nb::class_<Plan>(m, "Plan")
      .def("__init__", &make_plan, "batch"_a, "heads"_a, "q_len"_a, "k_len"_a, "offsets"_a.noconvert().none(),
           "spans"_a.noconvert().none(), "bits"_a.noconvert().none() = nb::none())
      .def_prop_ro("batch", [](const Plan& p) { return p.grid().batch; })
      .def_prop_ro("heads", [](const Plan& p) { return p.grid().heads; })
      .def_prop_ro("q_len", [](const Plan& p) { return p.grid().q_len; })
      .def_prop_ro("k_len", &Plan::k_len)
      .def_prop_ro("visible", &Plan::visible)
      .def_prop_ro("nbytes", &Plan::nbytes)
      .def("row", &plan_row, "r"_a)
      .def("tiles", &plan_tiles, "q_tile"_a = mmha::kForwardRows, "k_tile"_a = mmha::kForwardKeys);

  bind_attention(m);
  bind_cache(m);

  m.def("probe_fma", &mmha::probe_fma_gflops, "threads"_a, "seconds"_a = 0.2, nb::call_guard<nb::gil_scoped_release>());
  m.def("probe_read", &mmha::probe_read_gbytes, "nbytes"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
}
