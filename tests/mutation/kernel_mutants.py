"""What is broken in the kernels, one thing at a time: faults that a person makes when writing attention.

A mutant names a file of csrc/, a piece of its text that occurs there once, with the part between « and » that is
replaced, and the replacement: a statement (it ends with ; or }) or an expression. All are compiled at once, each behind
the number that the environment variable MMHA_MUTANT gives.
"""

# ruff: noqa: E501  (a table)
from __future__ import annotations

from typing import NamedTuple


class KernelMutant(NamedTuple):
    """One fault."""

    name: str
    file: str
    text: str
    new: str


_PLAIN_DS = "Vec ds = mul(mul(p, «sub(load(ds_at), delta)»), scale);\n        if (tile.is_mixed"

KERNEL_MUTANTS = [
    # Tiles: which pairs are visited.
    KernelMutant(
        "a span ends one key late", "tile.h",
        "«if (s.stop < tile.last) tile.seen[s.stop - tile.first] ^= uint64_t{1} << i;»",
        "if (s.stop + 1 < tile.last) tile.seen[s.stop + 1 - tile.first] ^= uint64_t{1} << i;",
    ),
    KernelMutant(
        "a span starts one key late", "tile.h",
        "«tile.seen[max64(s.start, base) - tile.first] ^= uint64_t{1} << i;»",
        "if (max64(s.start, base) - tile.first + 1 < count) "
        "tile.seen[max64(s.start, base) - tile.first + 1] ^= uint64_t{1} << i;",
    ),
    KernelMutant("the mask's bits are shifted by a row", "adjust.h", "lane_mask((uint32_t)(«rows >> lane»)", "rows >> lane >> 1"),
    KernelMutant("the last word of bits is skipped", "tile.h", "const int64_t words = «(at - base + 63) / 64»;", "(at - base) / 64"),
    KernelMutant("the last partial tile is skipped", "tile.h", "while («at < stop») {", "at + tile_keys <= stop"),
    KernelMutant("a tile is full though rows start late", "tile.h", "«tile.full_first = max64(tile.full_first, current_first);»", ";"),
    KernelMutant("a tile is full though rows end early", "tile.h", "«tile.full_last = min64(tile.full_last, current_last);»", ";"),
    KernelMutant("a tile of bits is always full", "tile.h", "full &= «tile.seen[j - first] == all»;", "true"),
    KernelMutant("a run loses its last key before a gap", "tile.h", "run[runs - 1].last = «j - gap»;", "j - gap - 1"),
    KernelMutant("all heads use the first head's mask", "tile.h", "(plan.heads == 1 ? 0 : «h»)", "(h * 0)"),
    KernelMutant("all rows of the batch use the first one's mask", "tile.h", "((plan.batch == 1 ? 0 : «b») * plan.heads", "(b * 0)"),
    KernelMutant("a chunk goes on to the end of the keys", "tile.h", "stop = «min64(last, plan->k_len)»;", "plan->k_len"),
    KernelMutant("the search passes over a span's last key", "tile.h", "plan->spans[middle].stop <= «base») low", "base + 1"),
    KernelMutant("the walk passes over a span's last key", "tile.h", "plan->spans[cursor[i]].stop <= «at») cursor[i]++", "at + 1"),
    KernelMutant("rows beyond the last count as visible", "tile.h",
        "void spell_out(int rows) {\n    const uint64_t all = «rows == 64 ? ~uint64_t{0} : (uint64_t{1} << rows) - 1»;", "~uint64_t{0}"),
    # The online softmax.
    KernelMutant("the sum is not rescaled", "softmax.h", "«mul(load(st.chunk.sum + lane), c)»", "load(st.chunk.sum + lane)"),
    KernelMutant("the output is not rescaled", "softmax.h", "store(st.rescale + lane, «c»);", "set1(1.0f)"),
    KernelMutant("hidden scores are not hidden", "softmax.h",
        "«x = select(lanes_of(tile.seen[j], lane0 + v * kLanes), x, hidden);»", ";"),
    KernelMutant("a row that has seen nothing subtracts -inf", "softmax.h",
        "top[v] = «select(equal(top[v], hidden), zero(), top[v])»;", "top[v]"),
    KernelMutant("a merge does not rescale the sum", "softmax.h", "take, «mul(load(st.total.sum + lane), keep)»", "load(st.total.sum + lane)"),
    KernelMutant("a merge does not rescale the output", "softmax.h", "take, «mul(load(st.total.out + at), keep)»", "load(st.total.out + at)"),
    KernelMutant("a chunk starts with what the last one left", "softmax.h", "  }\n  «st.chunk.clear(value_dim);»\n}", ";"),
    KernelMutant("forward draws dropout for the key in the tile", "softmax.h", "of_key(«tile.first + j»)", "tile.first * 0 + j"),
    # Forward.
    KernelMutant("chunks are merged in descending order", "forward.h", "st.chunk.top[i] = parts[«c» * floats + i];", "(count - 1 - c)"),
    KernelMutant("chunks are not kept apart", "forward.h", "tile.first / kChunkKeys != «chunk»", "tile.first / kChunkKeys"),
    KernelMutant("the total starts with garbage", "forward.h", "if (!merged) «st.total.clear(value_dim);»", ";"),
    KernelMutant("sinks are forgotten", "forward.h", "if («a.extras && a.extras->sinks») {", "false"),
    KernelMutant("a sink joins without rescaling the sum", "forward.h", "sum = «sum * shrink» + ", "sum"),
    KernelMutant("a sink does not rescale the output", "forward.h", "«taken *= shrink;»", ";"),
    KernelMutant("kept probabilities are not scaled up", "forward.h", "const float keep = «a.extras && a.extras->threshold» ?", "false"),
    KernelMutant("the lse of a hidden row is 0", "forward.h", "lse[i] = «-__builtin_inff()»;", "0.0f"),
    KernelMutant("a query head takes the wrong key/value head", "forward.h",
        "const int64_t kv = «where.h / (a.size.heads / a.size.kv_heads)»;", "where.h % a.size.kv_heads"),
    KernelMutant("values are read with the keys' stride", "forward.h", "a.k.stride_t, «a.v.stride_t», a.size.value_dim", "a.k.stride_t"),
    KernelMutant("folded heads write the first one's output", "forward.h", "out = at<E>(a.out, where.b, «where.head(i)»", "where.h"),
    KernelMutant("folded heads write the first one's lse", "forward.h", "a.lse[(where.b * a.size.heads + «where.head(i)»)", "where.h"),
    KernelMutant("the last partial block of rows is skipped", "forward.h",
        "return {b, h, row, «min64(kForwardRows, a.size.q_len - row)», kForwardRows};",
        "row > 0 && a.size.q_len - row < kForwardRows ? int64_t{0} : min64(kForwardRows, a.size.q_len - row)"),
    KernelMutant("folded heads keep no residual", "forward.h", "store_part(low(out) + d, «sub(x, load_part(out + d, part))», part)", "zero()"),
    KernelMutant("blocks keep no residual", "blocks.h", "store_part(low + at, «sub(r[i], load_part(x + at, part))», part)", "zero()"),
    # Blocks of few rows.
    KernelMutant("scores beyond the last key are left as they are", "few.h", "«s[j] = -__builtin_inff();»", ";"),
    KernelMutant("a few rows' output is not rescaled", "few.h", "store(at, «mul(load(at), set1(st.rescale[i]))»);", "load(at)"),
    KernelMutant("a few rows' output is not zeroed after a chunk", "few.h",
        "st.chunk.out);\n  for (int64_t i = 0; i < st.few.rows * wide; i++) «st.few.out[i] = 0.0f;»", ";"),
    KernelMutant("the sum of few rows runs downwards", "few.h", "s[r] += «p[r * kFewStride + j]»;", "p[r * kFewStride + count - 1 - j]"),
    KernelMutant("a value that is not finite meets the next row", "few.h", "if (tile.seen[j] >> «i» & 1)", "(i + 1)"),
    # Values.
    KernelMutant("every piece of a tile rescales the output again", "values.h", "(«j == first» ? rescale : kOnes)", "true"),
    KernelMutant("0 times infinity", "values.h", "return «tile.is_mixed(tile.first + j) && !all_finite(v, 0, 1, width)»;", "false"),
    KernelMutant("pairs of keys start with the tile", "values.h", "const int64_t odd = «tile.first % 2»", "int64_t{0}"),
    KernelMutant("bfloat16 is cut off instead of rounded (scalar)", "simd/scalar.h", "(u + «0x7fff + (u >> 16 & 1)») >> 16", "0u"),
    KernelMutant("bfloat16 is cut off instead of rounded (AVX-512)", "simd/avx512.h", "rounded = _mm512_srli_epi32(«_mm512_add_epi32(x, half)», 16);", "x"),
    KernelMutant("bfloat16 is cut off instead of rounded (AVX2)", "simd/avx2.h", "rounded = _mm256_srli_epi32(«_mm256_add_epi32(x, half)», 16);", "x"),
    # Caches.
    KernelMutant("the ring forgets that sinks come first", "cache.h", "at.slot = «c.sinks + (j - c.sinks) % c.ring»;", "(j - c.sinks) % c.ring"),
    KernelMutant("a piece runs past its page", "cache.h", "at.slot = j % c.slots;\n    «at_most(c.slots - at.slot);»", ";"),
    KernelMutant("a piece runs past the end of the ring", "cache.h", "«at_most(c.sinks + c.ring - at.slot);»", ";"),
    KernelMutant("a piece runs on in another beam's row", "cache.h", "while (same < at.count && «row[same] == row[0]») same++;", "true"),
    KernelMutant("values are scaled as keys", "cached.h", "scale_rows(«p.value_scales», part, st.few.weights", "p.key_scales"),
    KernelMutant("a group's first keys are not skipped", "cached.h", "whole[i * kFewStride + «skip + x»]", "x"),
    KernelMutant("int8 goes up to 128", "cached.h", "most / «127.0f»", "128.0f"),
    KernelMutant("int8 is cut off instead of rounded", "cached.h", "«__builtin_nearbyintf(x[d] / scale)»", "__builtin_truncf(x[d] / scale)"),
    KernelMutant("a query head takes the wrong head of a cache", "cached.h",
        "return {*a.cache, where.b, «where.h / (a.size.heads / a.size.kv_heads)»", "where.h % a.size.kv_heads"),
    # Backward.
    KernelMutant("dK and dV lack the group's first head", "backward.h",
        "«add_keys(a, st, from_key(grad_k, st.tile.first), from_key(grad_v, st.tile.first));»",
        "if (group == 1 || h != kv_head * group) "
        "add_keys(a, st, from_key(grad_k, st.tile.first), from_key(grad_v, st.tile.first));"),
    KernelMutant("dK and dV lack the group's last head, when split", "backward.h", "for (int64_t g = 0; «g < group»; g++)", "g < group - (group > 1)"),
    KernelMutant("dV is not zeroed", "backward.h", "«clear_rows(grad_v, s.k_len, s.value_dim);»", ";"),
    KernelMutant("dK is not zeroed, when split", "backward.h", "«clear_rows(grad_k, count, s.head_dim);»", ";"),
    KernelMutant("dQ is not zeroed, when split", "backward.h",
        "«clear_rows(grad_q, st.block.count, s.head_dim);»\n  RowWalk walk(", ";"),
    KernelMutant("a query head takes the wrong key/value head for dQ", "backward.h", "const int64_t kv = «h / (s.heads / s.kv_heads)»;", "h % s.kv_heads"),
    KernelMutant("delta leaves out the residual", "backward.h", "«low ? add(row(x), row(low)) : row(x)»", "row(x)"),
    KernelMutant("delta is forgotten", "probabilities.h", _PLAIN_DS, "load(ds_at)"),
    KernelMutant("hidden gradients are not hidden", "probabilities.h", "p = select(seen, p, zero());\n          «ds = select(seen, ds, zero());»", ";"),
    KernelMutant("hidden probabilities are not hidden", "probabilities.h", "«p = select(seen, p, zero());»", ";"),
    KernelMutant("the lse of a hidden row is taken as it is", "probabilities.h", "block.lse[i] = «lse == -__builtin_inff() ? 0.0f : lse * kLog2e»;", "lse * kLog2e"),
    KernelMutant("dV does not scale kept probabilities", "probabilities.h", "used = select(dropped, zero(), «mul(p, keep_scale)»);", "p"),
    KernelMutant("dropped pairs have gradients", "probabilities.h", "dp = «select(dropped, zero(), mul(dp, keep_scale))»;", "mul(dp, keep_scale)"),
    KernelMutant("the softcap's derivative is forgotten", "probabilities.h", "«if (capped) ds = mul(ds, load(st.slope + (p_at - st.p)));»", ";"),
    KernelMutant("the weights' own gradient is forgotten", "probabilities.h", "«if (returned) dp = add(dp, load(st.dp + (p_at - st.p)));»", ";"),
    KernelMutant("bias gradients are scaled", "probabilities.h", "const float factor = «of_scores ? 1.0f : a.scale»;", "a.scale"),
    KernelMutant("0 times infinity, backward", "outer.h", "if («finite || tile.is_full()») outer(m);", "true"),
    KernelMutant("seen pairs are those of the neighbouring query", "outer.h", ">> «query» & 1)", "(query ^ 1)"),
    # Biases, softcap and their gradients.
    KernelMutant("the table's gradient lacks the last block", "bias_gradient.h", "2 * tile - distance < «blocks»;", "blocks - 1"),
    KernelMutant("lanes beyond the last row are summed", "bias_gradient.h",
        "«if (st.block.count < kBackwardRows) st.tile.spell_out((int)st.block.count);»", ";"),
    KernelMutant("a broadcast additive's gradient sees one row of the batch", "bias_gradient.h", "(to.batch == 1 ? «s.batch» : own_b + 1)", "int64_t{1}"),
    KernelMutant("a broadcast additive's gradient sees one head", "bias_gradient.h", "(to.heads == 1 ? «s.heads» : own_h + 1)", "int64_t{1}"),
    KernelMutant("a relative table is read from the other end", "adjust.h", "min64(«most / 2 + distance», most)", "most / 2 - distance"),
    KernelMutant("biases forget where the queries start", "adjust.h", "position = («x->start ? x->start[b] : s.k_len - s.q_len») + row;", "s.k_len - s.q_len"),
    KernelMutant("an additive of -inf does not hide", "adjust.h",
        "«tile.seen[j] &= ~((uint64_t)bits_of(equal(x, hidden)) << lane);»", ";"),
    KernelMutant("the lowest number hides", "adjust.h", "store(at, «max(set1(kLowest), fma(x, log2e, load(at)))»);", "fma(x, log2e, load(at))"),
    KernelMutant("the lowest slope hides", "adjust.h", "a.strip[u] = «add < kLowest ? kLowest : add > -kLowest ? -kLowest : add»;", "add"),
    KernelMutant("an additive forgets its heads", "adjust.h", "a.b * t.stride_b + «a.h * t.stride_h»", "a.h * 0"),
    KernelMutant("tanh has one term fewer", "adjust.h", "p = fma(p, y, «set1(0.13325879f)»);", "set1(0.1332f)"),
    # Spans, plans, the sharing out of work, the step.
    KernelMutant("a complement lacks the last key", "spans.cpp", "append(out, {at, «(int32_t)k_len»});", "(int32_t)k_len - 1"),
    KernelMutant("an intersection leaves the longer span", "spans.cpp", "if («a->stop < b->stop») ++a;", "a->stop > b->stop"),
    KernelMutant("neighbouring runs are not joined", "spans.cpp", "has_last && out.spans.back().stop >= «s.start»)", "s.start + 1"),
    KernelMutant("a block of rows misses a span's last key tile", "plan.cpp", "t * kBackwardKeys < «spans_[c].stop»; t++", "spans_[c].stop - 1"),
    KernelMutant("a block of rows of bits is noted for the wrong tile", "plan.cpp", "sees(«64 * w / kBackwardKeys», block)", "w / kBackwardKeys"),
    KernelMutant("split chunks are written to folded heads", "driver.cpp", "unit / blocks % heads * «args.fold»", "1"),
    KernelMutant("folded heads cross a key/value head", "driver.cpp", "if («group % fold == 0») return fold;", "fold > 0"),
    KernelMutant("split dK and dV use the first head's mask", "driver.cpp", "mask_group(plan, b, kv * group + «g»)", "g * 0"),
    KernelMutant("a sink's gradient counts hidden rows", "driver.cpp", "if («lse[i] != -INFINITY») sum", "true"),
    KernelMutant("a table's gradient goes to the next distance", "driver.cpp", "std::clamp<int64_t>(«width / 2 + distance», 0", "width / 2 + distance + 1"),
    KernelMutant("gradients of slopes lack the distance's sign", "driver.cpp", "(double)«std::abs(distance)» * g", "distance"),
    KernelMutant("rotary turns backwards", "step.cpp", "*first = «x1 * c - x2 * s»;", "x1 * c + x2 * s"),
    KernelMutant("a step's window is one key short on the left", "step.cpp", "std::max<int64_t>(0, «p - left»)", "p - left + 1"),
    KernelMutant("a step's window is one key short on the right", "step.cpp", "std::min(rows.lengths[b], «p + right + 1»)", "p + right"),
    KernelMutant("a cyclic step sees one key too many", "step.cpp", "std::max({first, «p - window + 1», sinks})", "p - window"),
    KernelMutant("a key that is just kept counts as forgotten", "step.cpp", "< «std::min<int64_t>(s.stop, kept[b])») return b;", "std::min<int64_t>(s.stop, kept[b] + 1)"),
    KernelMutant("a step's bias is added to the queries alone", "step.cpp", "«(a.bias ? a.bias[from + d] : 0.0f)»",
        "(a.bias && from == 0 ? a.bias[from + d] : 0.0f)"),
]  # fmt: skip
