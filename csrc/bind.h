// The binding's parts. Python is known here and in bind*.cpp, nowhere else.
#pragma once
#include <nanobind/nanobind.h>

void bind_attention(nanobind::module_& m);
void bind_cache(nanobind::module_& m);
