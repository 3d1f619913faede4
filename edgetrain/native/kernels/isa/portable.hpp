// The micro-kernels in plain C++: the twin that every other instruction set must equal.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct Portable {
  static constexpr const char* name = "portable";

  // Signs of 32 latents: bit i is set where latent i is not negative.
  static std::uint32_t sign_word(const std::int8_t* latents) {
    std::uint32_t word = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      word |= static_cast<std::uint32_t>(latents[lane] >= 0) << lane;
    }
    return word;
  }

  // Bit i is set where value i is at least threshold i.
  static std::uint32_t at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    std::uint32_t word = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      word |= static_cast<std::uint32_t>(values[lane] >= thresholds[lane]) << lane;
    }
    return word;
  }

  // tile[count][32] = inputs - 2 popcount(row ^ panel), panel[words][32].
  static void xnor(const std::uint32_t* rows, std::size_t words, std::size_t count,
                   const std::uint32_t* panel, std::int32_t inputs, std::int32_t* tile) {
    for (std::size_t row = 0; row < count; ++row) {
      std::int32_t differing[lanes] = {};
      for (std::size_t word = 0; word < words; ++word) {
        const std::uint32_t signs = rows[row * words + word];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          differing[lane] += population(signs ^ panel[word * lanes + lane]);
        }
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        tile[row * lanes + lane] = inputs - 2 * differing[lane];
      }
    }
  }

  // out[count][32] = initial + multiplier * (row . panel) (+ out), panel[quads][32][4].
  static void dot(const ByteRows& rows, std::size_t count, const std::int8_t* panel,
                  std::size_t quads, const std::int32_t* initial, std::int32_t multiplier,
                  bool accumulate, std::int32_t* out, std::size_t out_stride) {
    for (std::size_t row = 0; row < count; ++row) {
      std::int32_t sums[lanes] = {};
      for (std::size_t quad = 0; quad < quads; ++quad) {
        const std::uint8_t* values = rows.data + row * rows.row_stride + quad * rows.quad_stride;
        const std::int8_t* weights = panel + quad * 4 * lanes;
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          std::int32_t sum = 0;
          for (std::size_t byte = 0; byte < 4; ++byte) {
            sum += values[byte] * weights[4 * lane + byte];
          }
          sums[lane] += sum;
        }
      }
      std::int32_t* result = out + row * out_stride;
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const std::int32_t before = accumulate ? result[lane] : 0;
        result[lane] = before + initial[lane] + multiplier * sums[lane];
      }
    }
  }

 private:
  // Without a popcount instruction the builtin is a table; this form vectorises.
  static std::int32_t population(std::uint32_t x) {
    x -= (x >> 1) & 0x55555555U;
    x = (x & 0x33333333U) + ((x >> 2) & 0x33333333U);
    x = (x + (x >> 4)) & 0x0F0F0F0FU;
    return static_cast<std::int32_t>((x * 0x01010101U) >> 24);
  }
};

}  // namespace edgetrain
