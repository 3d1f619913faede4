// What a shortcut does to a tile of 32 channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

// A template over the instruction set only to be compiled for each.
template <class Isa>
struct ShortcutKernels {
  static void add_signs(const std::uint32_t* signs, std::size_t words, std::size_t count,
                        std::int32_t gain, std::int32_t* tile) {
    for (std::size_t row = 0; row < count; ++row, tile += lanes) {
      const std::uint32_t bits = signs[row * words];
      for (std::uint32_t lane = 0; lane < lanes; ++lane) {
        const auto bit = static_cast<std::int32_t>((bits >> lane) & 1U);
        tile[lane] += (bit * 2 - 1) * gain;
      }
    }
  }

  static void negate_unlike(const std::uint32_t* a, const std::uint32_t* b, std::size_t words,
                            std::size_t count, std::int32_t* gradient) {
    for (std::size_t row = 0; row < count; ++row, gradient += lanes) {
      const std::uint32_t unlike = a[row * words] ^ b[row * words];
      std::int32_t value[lanes];
      std::memcpy(value, gradient, sizeof value);
      for (std::uint32_t lane = 0; lane < lanes; ++lane) {
        const std::int32_t all_ones = -static_cast<std::int32_t>((unlike >> lane) & 1U);
        value[lane] = (value[lane] ^ all_ones) - all_ones;
      }
      std::memcpy(gradient, value, sizeof value);
    }
  }
};

}  // namespace edgetrain
