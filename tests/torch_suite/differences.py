"""What differs on purpose when torch's tests meet our classes: patterns of test names, each with its reason.

A test that matches and passes with ours is reported as an unexpected pass; docs/differences.md says the same to users.
"""

from __future__ import annotations

HIDDEN_ROWS = "asserts NaN in rows that see nothing; here they are 0 before the last projection, in every mode"
FAST_PATH = "asserts that torch's own fused inference kernel is called, which ours has no need of"
WORDS = "asserts torch's words for an error; ours raises an error of the same kind, in its own words"
SCRIPT = "torch.jit.script: refused in one line, a mask as a value has no type in TorchScript"
DROPOUT = "compares entries after dropout with torch's pattern for a seed; ours draws another"
ONCE = "takes the gradient of a gradient, which kernels do not have"

DIFFERENCES = {
    r"TestMultiheadAttentionNN\.test_multihead_attention_average_attn_weights": HIDDEN_ROWS,
    r"test_transformerencoderlayer_cpu_float(32|64)$": HIDDEN_ROWS,
    r"test_multihead_self_attn_two_masks_fast_path_mock": FAST_PATH,
    r"test_disable_fastpath|test_mask_check_fastpath": FAST_PATH,
    r"test_multihead_attn_(fast_path_)?invalid_shape": WORDS,
    r"test_multihead_attn_nested_tensor_outside_fast_path": WORDS,
    r"test_TransformerEncoderLayer_empty": WORDS,
    r"test_scaled_dot_product_attention_.*_causal_attn_mask": WORDS,
    r"TestAttnBias.*test_is_causal_and_mask_fails": WORDS,
    r"test_multihead_attn_fast_path_query_and_bias_have_different_dtypes": "a bias of another dtype than the weights: "
    "torch adds it or raises by the layout in memory; ours always raises",
    r"test_transformer_args_check": "asserts that integer masks are refused; ours takes integers 0 and 1",
    r"test_train_with_is_causal": "asserts that is_causal without a mask is refused; ours takes it as a causal mask",
    r"test_transformer_bias_is_none": "asserts a warning that nested tensors will not be used; ours never uses them",
    r"test_scaled_dot_product_attention_(3D_input_dim_(no|2D)|4D_input_dim_no)_attn_mask_dropout_p_0_[25]": DROPOUT,
    r"test_modules\..*test_gradgrad_nn_MultiheadAttention": ONCE,
    r"test_script_|test_transformerencoderlayer_subclass|test_torchscript_multi_head_attn": SCRIPT,
}
