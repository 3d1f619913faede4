// The micro-kernels in plain C++: the twin that every other instruction set must equal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct Portable {
  static constexpr const char* name = "portable";
  static constexpr bool has_lookup = false;

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

  // tile[count][32] = inputs - 2 popcount(row ^ panel) (+ tile), panel[words][32].
  static void xnor(const std::uint32_t* rows, std::size_t row_stride, std::size_t words,
                   std::size_t count, const std::uint32_t* panel, std::int32_t inputs,
                   bool accumulate, std::int32_t* tile) {
    for (std::size_t row = 0; row < count; ++row) {
      std::int32_t differing[lanes] = {};
      for (std::size_t word = 0; word < words; ++word) {
        const std::uint32_t signs = rows[row * row_stride + word];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          differing[lane] += population(signs ^ panel[word * lanes + lane]);
        }
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const std::int32_t before = accumulate ? tile[row * lanes + lane] : 0;
        tile[row * lanes + lane] = before + inputs - 2 * differing[lane];
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

  // out[32][4]: four rows of 32 bytes side by side.
  template <ByteForm form>
  static void interleave(const void* rows, std::size_t stride, std::int8_t* out) {
    const auto* bytes = static_cast<const std::uint8_t*>(rows);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      for (std::size_t row = 0; row < 4; ++row) {
        out[4 * lane + row] = formed<form>(bytes[row * stride + lane]);
      }
    }
  }

  // out[8][32][4]: 32 rows of 32 bytes, every quad of a row one entry.
  template <ByteForm form>
  static void transpose(const std::int8_t* rows, std::size_t stride, std::int8_t* out) {
    for (std::size_t row = 0; row < lanes; ++row) {
      for (std::size_t i = 0; i < lanes; ++i) {
        const auto byte = static_cast<std::uint8_t>(rows[row * stride + i]);
        out[i / 4 * 4 * lanes + 4 * row + i % 4] = formed<form>(byte);
      }
    }
  }

  // 32 latents -= sign(gradient) * step / 256, the fraction rounded by the draws from `index`.
  static void update_latents(std::int8_t* latents, const std::int32_t* gradient, Key key,
                             std::uint32_t index, std::uint32_t step) {
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t draw = random_byte(key, 4 * index + lane);
      const auto size = static_cast<std::int32_t>((step + draw) >> 8);
      const std::int32_t sign = (gradient[lane] > 0) - (gradient[lane] < 0);
      const std::int32_t moved = latents[lane] - sign * size;
      latents[lane] = static_cast<std::int8_t>(std::clamp(moved, -127, 127));
    }
  }

  // 32 codes of 4 bits, the low ones first, to bytes.
  static void decode(const std::uint8_t* codes, std::uint8_t* bytes) {
    for (std::size_t pair = 0; pair < lanes / 2; ++pair) {
      bytes[2 * pair] = code_bytes[codes[pair] & 15U];
      bytes[2 * pair + 1] = code_bytes[codes[pair] >> 4];
    }
  }

 private:
  template <ByteForm form>
  static std::int8_t formed(std::uint8_t byte) {
    if constexpr (form == ByteForm::signs) {
      return byte < 128 ? 1 : -1;
    } else if constexpr (form == ByteForm::centred) {
      return static_cast<std::int8_t>(byte ^ 0x80U);
    } else {
      return static_cast<std::int8_t>(byte);
    }
  }

  // Without a popcount instruction the builtin is a table; this form vectorises.
  static std::int32_t population(std::uint32_t x) {
    x -= (x >> 1) & 0x55555555U;
    x = (x & 0x33333333U) + ((x >> 2) & 0x33333333U);
    x = (x + (x >> 4)) & 0x0F0F0F0FU;
    return static_cast<std::int32_t>((x * 0x01010101U) >> 24);
  }
};

}  // namespace edgetrain
