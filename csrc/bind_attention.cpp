// The calls that compute attention. Tensors come as (pointer, sizes, strides) that mmha.ops has already checked: a
// DLPack crossing costs microseconds a tensor, which tiny problems would feel.
#include "bind.h"

#include <stdexcept>
#include <tuple>

#include "bind_arguments.h"
#include "driver.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using mmha::Plan;
using mmha::RowGrid;
using TensorArg = std::tuple<uintptr_t, Dims4, Dims>;  // pointer, (B, heads, T, width), strides of all but the last

mmha::Tensor tensor(const TensorArg& t) {
  const auto& [pointer, dims, strides] = t;
  return {reinterpret_cast<void*>(pointer), std::get<0>(strides), std::get<1>(strides), std::get<2>(strides)};
}

void check_dims(const TensorArg& t, const char* name, const Dims4& expected) {
  if (std::get<1>(t) != expected) throw std::invalid_argument("`" + std::string(name) + "`: sizes do not fit");
}

mmha::Sizes sizes(const Plan& plan, const TensorArg& q, const TensorArg& k, const TensorArg& v) {
  const auto& [B, H, Tq, D] = std::get<1>(q);
  const auto& [Bk, Hk, Tk, Dk] = std::get<1>(k);
  const int64_t Dv = std::get<3>(std::get<1>(v));
  const mmha::Sizes s{B, H, Hk, Tq, Tk, D, Dv};
  check_dims(k, "k", {B, Hk, Tk, D});
  check_dims(v, "v", {B, Hk, Tk, Dv});
  if (Hk <= 0 || H % Hk) throw std::invalid_argument("`k`: expected a number of heads that divides q's");
  const RowGrid g = plan.grid();
  if ((g.batch != 1 && g.batch != B) || (g.heads != 1 && g.heads != H) || g.q_len != Tq || plan.k_len() != Tk)
    throw std::invalid_argument("`plan`: sizes do not fit q and k");
  return s;
}

void forward(const Plan& plan, int dtype, const TensorArg& q, const TensorArg& k, const TensorArg& v,
             const TensorArg& out, uintptr_t residual, uintptr_t lse, float scale,
             const std::optional<ExtrasArg>& extras, int threads) {
  const mmha::Sizes s = sizes(plan, q, k, v);
  check_dims(out, "out", {s.batch, s.heads, s.q_len, s.value_dim});
  const Extras extra(extras);
  const mmha::ForwardArgs args{
      s,     {},          tensor(q), tensor(k), tensor(v), tensor(out), pointer<void>(residual), pointer<float>(lse),
      scale, extra.get(), 1,         nullptr};
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::forward(args, plan, type, threads);
}

// Fills `out` (B, H, Tq, Tk), which is 0 before, from the lse that forward found.
void weights(const Plan& plan, int dtype, const TensorArg& q, const TensorArg& k, uintptr_t lse, const TensorArg& out,
             float scale, const std::optional<ExtrasArg>& extras, int threads) {
  const Extras extra(extras);
  mmha::BackwardArgs args{};
  args.size = sizes(plan, q, k, k);
  const mmha::Sizes& s = args.size;
  check_dims(out, "out", {s.batch, s.heads, s.q_len, s.k_len});
  args.q = tensor(q);
  args.k = tensor(k);
  args.lse = pointer<const float>(lse);
  args.scale = scale;
  args.extras = extra.get();
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::weights(args, tensor(out), plan, type, threads);
}

// q, k, v, lse, delta, grad_out, and the gradient of returned weights, whose address may be 0: what every backward
// pass starts from.
using SavedArg = std::tuple<TensorArg, TensorArg, TensorArg, uintptr_t, uintptr_t, TensorArg, AdditiveArg>;

mmha::BackwardArgs backward_args(const Plan& plan, const SavedArg& saved, float scale, const Extras& extra) {
  const auto& [q, k, v, lse, delta, grad_out, grad_weights] = saved;
  const mmha::Sizes s = sizes(plan, q, k, v);
  check_dims(grad_out, "grad_out", {s.batch, s.heads, s.q_len, s.value_dim});
  mmha::BackwardArgs args{};
  args.size = s;
  args.q = tensor(q);
  args.k = tensor(k);
  args.v = tensor(v);
  args.grad_out = tensor(grad_out);
  args.lse = pointer<const float>(lse);
  args.delta = pointer<const float>(delta);
  args.scale = scale;
  args.extras = extra.get();
  args.grad_weights = additive(grad_weights);
  if (args.grad_weights.data && !args.extras)
    throw std::invalid_argument("`extras`: expected them to be given with a gradient of the weights");
  return args;
}

void backward(const Plan& plan, int dtype, const SavedArg& saved,
              const std::tuple<TensorArg, TensorArg, TensorArg>& grads, float scale,
              const std::optional<ExtrasArg>& extras, int threads) {
  const Extras extra(extras);
  mmha::BackwardArgs args = backward_args(plan, saved, scale, extra);
  const auto& [grad_q, grad_k, grad_v] = grads;
  check_dims(grad_q, "grad_q", std::get<1>(std::get<0>(saved)));
  check_dims(grad_k, "grad_k", std::get<1>(std::get<1>(saved)));
  check_dims(grad_v, "grad_v", std::get<1>(std::get<2>(saved)));
  args.grad_q = tensor(grad_q);
  args.grad_k = tensor(grad_k);
  args.grad_v = tensor(grad_v);
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::backward(args, plan, type, threads);
}

void table_gradient(const Plan& plan, int dtype, const SavedArg& saved, float scale, const ExtrasArg& extras,
                    uintptr_t table, uintptr_t slopes, int threads) {
  const Extras extra(extras);
  const mmha::BackwardArgs args = backward_args(plan, saved, scale, extra);
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::table_gradient(args, plan, type, pointer<float>(table), pointer<float>(slopes), threads);
}

void additive_gradient(const Plan& plan, int dtype, const SavedArg& saved, float scale, const ExtrasArg& extras,
                       uintptr_t out, const Dims4& dims, int threads) {
  const Extras extra(extras);
  const mmha::BackwardArgs args = backward_args(plan, saved, scale, extra);
  const mmha::AdditiveGradient to{pointer<float>(out), std::get<0>(dims), std::get<1>(dims), std::get<2>(dims),
                                  std::get<3>(dims)};
  const mmha::Sizes& s = args.size;
  if ((to.batch != 1 && to.batch != s.batch) || (to.heads != 1 && to.heads != s.heads) ||
      (to.q_len != 1 && to.q_len != s.q_len) || (to.k_len != 1 && to.k_len != s.k_len))
    throw std::invalid_argument("`dims`: expected each size 1 or that of (B, H, Tq, Tk)");
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::additive_gradient(args, plan, type, to, threads);
}

void sink_gradient(uintptr_t lse, uintptr_t delta, uintptr_t sinks, const Dims& dims, uintptr_t out) {
  mmha::Sizes s{};
  std::tie(s.batch, s.heads, s.q_len) = dims;
  nb::gil_scoped_release release;
  mmha::sink_gradient(s, pointer<const float>(lse), pointer<const float>(delta), pointer<const float>(sinks),
                      pointer<float>(out));
}

void row_dot(int dtype, const TensorArg& a, uintptr_t residual, const TensorArg& b, uintptr_t out, int threads) {
  const auto& [B, H, T, D] = std::get<1>(a);
  check_dims(b, "b", std::get<1>(a));
  const mmha::RowDotArgs args{B, H, T, D, tensor(a), tensor(b), pointer<void>(residual), pointer<float>(out)};
  const mmha::DType type = dtype_of(dtype);
  nb::gil_scoped_release release;
  mmha::row_dot(args, type, threads);
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("forward", &forward, "plan"_a, "dtype"_a, "q"_a, "k"_a, "v"_a, "out"_a, "residual"_a, "lse"_a, "scale"_a,
        "extras"_a.none(), "threads"_a);
  m.def("weights", &weights, "plan"_a, "dtype"_a, "q"_a, "k"_a, "lse"_a, "out"_a, "scale"_a, "extras"_a.none(),
        "threads"_a);
  m.def("backward", &backward, "plan"_a, "dtype"_a, "saved"_a, "grads"_a, "scale"_a, "extras"_a.none(), "threads"_a);
  m.def("table_gradient", &table_gradient, "plan"_a, "dtype"_a, "saved"_a, "scale"_a, "extras"_a, "table"_a, "slopes"_a,
        "threads"_a);
  m.def("additive_gradient", &additive_gradient, "plan"_a, "dtype"_a, "saved"_a, "scale"_a, "extras"_a, "out"_a,
        "dims"_a, "threads"_a);
  m.def("sink_gradient", &sink_gradient, "lse"_a, "delta"_a, "sinks"_a, "dims"_a, "out"_a);
  m.def("row_dot", &row_dot, "dtype"_a, "a"_a, "residual"_a, "b"_a, "out"_a, "threads"_a);
}
