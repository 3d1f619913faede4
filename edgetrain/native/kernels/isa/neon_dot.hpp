// Micro-kernels for ARM processors with the dot products of ARMv8.2.
#pragma once

#include <arm_neon.h>

#include <cstddef>

#include "neon.hpp"

namespace edgetrain {

struct DotProduct {
  using Sum = int32x4_t;
  static constexpr std::size_t vectors = 4;

  static void add(Sum& sum, int8x16_t values, int8x16_t weights) {
    sum = vdotq_s32(sum, values, weights);
  }
  static int32x4_t total(const Sum& sum) { return sum; }
};

struct NeonDot : NeonKernels<DotProduct> {
  static constexpr const char* name = "neon_dot";
  static constexpr bool has_lookup = false;
};

}  // namespace edgetrain
