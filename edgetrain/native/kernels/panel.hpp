// What linear layers, convolutions and norms do alike with the bytes of a panel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Isa>
struct Panel {
  // panel[32 lanes][4 rows] = 1 and -1 of four words. `minus_one` has 0xFF in the byte of every
  // row that exists; the others become 0.
  static void spread_signs(const std::uint32_t* words, std::uint32_t minus_one,
                           std::int8_t* panel) {
    std::uint32_t packed[lanes];
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t bits = ((words[0] >> lane) & 1U) | ((words[1] >> lane) & 1U) << 8 |
                                 ((words[2] >> lane) & 1U) << 16 | ((words[3] >> lane) & 1U) << 24;
      // Bytewise, and without a borrow: a set bit becomes 1, an unset one -1, a missing one 0.
      packed[lane] = minus_one - bits * 0xFEU;
    }
    std::memcpy(panel, packed, sizeof packed);
  }

  // values[32] = 1 and -1 of a word.
  static void unpack(std::uint32_t word, std::int8_t* values) {
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      values[lane] = static_cast<std::int8_t>(static_cast<int>((word >> lane) & 1U) * 2 - 1);
    }
  }

  // panel[32 lanes][4 rows] = the rows that are present, `filler` in place of the others.
  template <ByteForm form>
  static void interleave_present(const std::uint8_t* rows, std::size_t stride, std::size_t present,
                                 std::int32_t filler, std::int8_t* panel) {
    if (present == 4) {
      Isa::template interleave<form>(rows, stride, panel);
      return;
    }
    std::uint8_t values[4][lanes];
    std::memset(values, filler, sizeof values);
    for (std::size_t row = 0; row < present; ++row) {
      std::memcpy(values[row], rows + row * stride, lanes);
    }
    Isa::template interleave<form>(values, lanes, panel);
  }

  // sums[32] = multiplier * the sum of every lane of the panel, one more product, with ones
  // (+ sums).
  static void sum_lanes(const std::int8_t* panel, std::size_t quads, std::int32_t multiplier,
                        bool accumulate, std::int32_t* sums) {
    constexpr std::uint8_t ones[4] = {1, 1, 1, 1};
    constexpr std::int32_t zeros[lanes] = {};
    Isa::dot({ones, 0, 0}, 1, panel, quads, zeros, multiplier, accumulate, sums, lanes);
  }

  // out[32] = the codes whose bit is set, zero elsewhere.
  static void select_codes(std::uint32_t word, const std::uint8_t* codes, std::uint8_t* out) {
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      out[lane] = ((word >> lane) & 1U) != 0 ? codes[lane] : static_cast<std::uint8_t>(code_zero);
    }
  }
};

}  // namespace edgetrain
