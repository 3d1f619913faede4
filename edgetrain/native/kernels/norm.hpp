// Batch norm and sign, forward and backward, a tile of 32 channels at a time. All sums are exact
// integers; what floating point there is stands in `line`, once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

template <class Isa>
struct NormKernels {
  static void sum(const std::int32_t* tile, std::size_t count, TileSums& sums) {
    std::int64_t sum[lanes] = {};
    for (std::size_t row = 0; row < count; ++row) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        sum[lane] += tile[row * lanes + lane];
      }
    }
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      sums.sum[lane] += sum[lane];
    }
  }

  static void above(const std::int32_t* tile, std::size_t count, TileSums& sums) {
    std::int32_t level[lanes];
    std::memcpy(level, sums.level, sizeof level);
    std::int64_t above[lanes] = {};
    std::int32_t number[lanes] = {};
    for (std::size_t row = 0; row < count; ++row) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const std::int32_t value = tile[row * lanes + lane];
        const std::int32_t taken = value >= level[lane] ? -1 : 0;
        above[lane] += value & taken;
        number[lane] -= taken;
      }
    }
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      sums.above[lane] += above[lane];
      sums.number[lane] += number[lane];
    }
  }

  static void signs(const std::int32_t* tile, std::size_t count, const TileThresholds& given,
                    std::size_t words, std::uint32_t* signs, std::uint32_t* mask) {
    // A copy, which no store of a sign can change.
    const TileThresholds thresholds = given;
    for (std::size_t row = 0; row < count; ++row) {
      const std::int32_t* values = tile + row * lanes;
      signs[row * words] = Isa::at_least(values, thresholds.sign);
      if (mask != nullptr) {
        mask[row * words] =
            Isa::at_least(values, thresholds.low) & Isa::at_least(thresholds.high, values);
      }
    }
  }

  static void gradient_sums(const GradientTile& tile, GradientSums& sums) {
    for (std::size_t begin = 0; begin < tile.count; begin += tile.safe_rows) {
      const std::size_t end = std::min(begin + tile.safe_rows, tile.count);
      std::int32_t all[lanes] = {};
      std::int32_t positive[lanes] = {};
      for (std::size_t row = begin; row < end; ++row) {
        const std::uint32_t mask = mask_word(tile, row);
        const std::uint32_t signs = tile.signs[row * tile.words];
        std::int32_t value[lanes];
        std::memcpy(value, tile.gradient + row * lanes, sizeof value);
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          value[lane] &= -static_cast<std::int32_t>((mask >> lane) & 1U);
        }
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          all[lane] += value[lane];
        }
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          positive[lane] += value[lane] & -static_cast<std::int32_t>((signs >> lane) & 1U);
        }
        spread(value, signs, 1, sums);
        spread(value, ~signs, 0, sums);
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const std::int64_t total = all[lane];
        sums.sum[lane] += total;
        sums.signed_sum[lane] += 2 * static_cast<std::int64_t>(positive[lane]) - total;
      }
    }
  }

  static void gradient_codes(const GradientTile& tile, const GradientLine& line, Key key,
                             const CodePlace& place, std::uint8_t* codes) {
    for (std::size_t row = 0; row < tile.count; ++row) {
      float values[lanes];
      evaluate(tile, line, row, values);
      const auto counter =
          static_cast<std::uint32_t>((place.first_row + row) * place.channels + place.first);
      std::uint32_t draws[lanes];
      for (std::uint32_t lane = 0; lane < lanes; ++lane) {
        draws[lane] = random_bits(key, counter + lane) >> 9;
      }
      std::uint32_t code[lanes];
      encode(values, line.range, draws, code);
      std::uint64_t pairs[lanes / 2];
      std::memcpy(pairs, code, sizeof pairs);
      std::uint8_t* out = codes + counter / 2;
      for (std::size_t pair = 0; pair < lanes / 2; ++pair) {
        out[pair] = static_cast<std::uint8_t>(pairs[pair] | pairs[pair] >> 28);
      }
    }
  }

  static void decode_codes(const std::uint8_t* codes, std::size_t count, std::size_t first,
                           std::size_t channels, std::uint8_t* rows, std::uint8_t* columns) {
    for (std::size_t row = 0; row < count; row += 4) {
      const std::size_t present = std::min<std::size_t>(4, count - row);
      std::uint8_t* out = rows + row * channels + first;
      for (std::size_t i = 0; i < present; ++i) {
        Isa::decode(codes + ((row + i) * channels + first) / 2, out + i * channels);
      }
      if (columns == nullptr) {
        continue;
      }
      auto* quads = reinterpret_cast<std::int8_t*>(columns + row * channels + 4 * first);
      Panel<Isa>::template interleave_present<ByteForm::plain>(out, channels, present, code_zero,
                                                               quads);
    }
  }

 private:
  // The least and the largest of the values whose bit is set.
  static void spread(const std::int32_t* value, std::uint32_t bits, std::size_t sign,
                     GradientSums& sums) {
    std::int32_t* lowest = sums.lowest[sign];
    std::int32_t* highest = sums.highest[sign];
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const bool taken = ((bits >> lane) & 1U) != 0;
      lowest[lane] = std::min(lowest[lane], taken ? value[lane] : INT32_MAX);
      highest[lane] = std::max(highest[lane], taken ? value[lane] : INT32_MIN);
    }
  }

  static std::uint32_t mask_word(const GradientTile& tile, std::size_t row) {
    return tile.mask == nullptr ? ~0U : tile.mask[row * tile.words];
  }

  // The one floating-point expression of the backward pass.
  static void evaluate(const GradientTile& tile, const GradientLine& line, std::size_t row,
                       float* values) {
    const std::uint32_t mask = mask_word(tile, row);
    const std::uint32_t signs = tile.signs[row * tile.words];
    const std::int32_t* gradient = tile.gradient + row * lanes;
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::int32_t value = gradient[lane] & -static_cast<std::int32_t>((mask >> lane) & 1U);
      const float upper = line.upper[lane];
      const float lower = line.lower[lane];
      const float mean = ((signs >> lane) & 1U) != 0 ? upper : lower;
      values[lane] = line.slope[lane] * static_cast<float>(value) - mean;
    }
  }

  // LUQ (Chmiel et al. 2023): sign and exponent, rounded at random between powers of two, so that
  // the expectation is the value. 23 random bits added to the mantissa carry into the exponent
  // with just the right probability. Written as plain loops over lanes, which vectorise.
  static void encode(const float* values, const float* range, const std::uint32_t* draws,
                     std::uint32_t* code) {
    constexpr std::uint32_t one = 0x3F800000U;
    std::uint32_t bits[lanes];
    std::memcpy(bits, values, sizeof bits);
    std::uint32_t absolute[lanes];
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      absolute[lane] = bits[lane] & 0x7FFFFFFFU;
    }
    float magnitude[lanes];
    std::memcpy(magnitude, absolute, sizeof magnitude);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      magnitude[lane] *= range[lane];
    }
    std::uint32_t scaled[lanes];
    std::memcpy(scaled, magnitude, sizeof scaled);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t carried = ((scaled[lane] + draws[lane]) >> 23) - 126U;
      const std::uint32_t normal = std::min(carried, 7U);
      const float below_one = std::min(magnitude[lane], 1.0F);
      const auto chance = static_cast<std::int32_t>(below_one * 8388608.0F);
      const std::uint32_t underflow = chance > static_cast<std::int32_t>(draws[lane]) ? 1U : 0U;
      const std::uint32_t exponent = scaled[lane] < one ? underflow : normal;
      const std::uint32_t sign = exponent != 0 ? bits[lane] >> 31 << 3 : 0U;
      code[lane] = sign | exponent;
    }
  }
};

}  // namespace edgetrain
