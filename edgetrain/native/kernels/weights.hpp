// Weights as the products need them: signs or int8 values, laid out in panels of 32 lanes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

// A copy whose usual length the compiler knows.
static inline void copy(const std::int8_t* from, std::size_t count, std::int8_t* to) {
  if (count == lanes) {
    std::memcpy(to, from, lanes);
  } else {
    std::memcpy(to, from, count);
  }
}

// out[32][4] = the four rows side by side; adds up every lane.
static inline void interleave(const std::int8_t (&rows)[4][lanes], std::int8_t* out,
                              std::int32_t* sums) {
  std::uint32_t packed[lanes];
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    packed[lane] = static_cast<std::uint32_t>(static_cast<std::uint8_t>(rows[0][lane])) |
                   static_cast<std::uint32_t>(static_cast<std::uint8_t>(rows[1][lane])) << 8 |
                   static_cast<std::uint32_t>(static_cast<std::uint8_t>(rows[2][lane])) << 16 |
                   static_cast<std::uint32_t>(static_cast<std::uint8_t>(rows[3][lane])) << 24;
    sums[lane] += rows[0][lane] + rows[1][lane] + rows[2][lane] + rows[3][lane];
  }
  std::memcpy(out, packed, sizeof packed);
}

template <class Isa>
struct WeightPanels {
  // An fsb weight, a scale of 8 bits with a sign, is 2 * plane 0 + plane 1.
  static std::size_t planes(const Weights& weights) {
    return weights.mode == WeightMode::fsb ? 2 : 1;
  }
  static std::int32_t plane_factor(const Weights& weights, std::size_t plane) {
    return weights.mode == WeightMode::fsb && plane == 0 ? 2 : 1;
  }

  // values[32] = the weights of one output for the inputs from `first`, zero past the last.
  static void expand(const Weights& weights, std::size_t output, std::size_t first,
                     std::size_t plane, std::int8_t* values) {
    const std::size_t valid = std::min(lanes, weights.inputs - first);
    if (weights.mode == WeightMode::fsb) {
      expand_scaled(weights, output, first, plane, values);
    } else {
      const std::int8_t* latent = weights.latent + output * weights.inputs + first;
      std::int8_t padded_latent[lanes] = {};
      if (valid < lanes) {
        copy(latent, valid, padded_latent);
        latent = padded_latent;
      }
      if (weights.mode == WeightMode::int8) {
        std::memcpy(values, latent, lanes);
        return;
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        values[lane] = static_cast<std::int8_t>((latent[lane] >> 7) | 1);
      }
    }
    for (std::size_t lane = valid; lane < lanes; ++lane) {
      values[lane] = 0;
    }
  }

  // panel[words][32] = packed signs of the outputs from `first`; zero bits past the last input.
  static void pack_signs(const Weights& weights, std::size_t first, std::uint32_t* panel) {
    const std::size_t words = padded(weights.inputs) / lanes;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const bool exists = first + lane < weights.outputs;
      const std::int8_t* row = weights.latent + (first + lane) * weights.inputs;
      for (std::size_t word = 0; word < words; ++word) {
        const std::size_t valid = std::min(lanes, weights.inputs - word * lanes);
        std::uint32_t signs = 0;
        if (exists && valid == lanes) {
          signs = Isa::sign_word(row + word * lanes);
        } else if (exists) {
          std::int8_t tail[lanes];
          std::memset(tail, -1, lanes);
          std::memcpy(tail, row + word * lanes, valid);
          signs = Isa::sign_word(tail);
        }
        panel[word * lanes + lane] = signs;
      }
    }
  }

  // panel[inputs / 4][32 outputs][4 inputs] of the outputs from `first`; sums a lane.
  static void pack_outputs(const Weights& weights, std::size_t first, std::size_t plane,
                           std::int8_t* panel, std::int32_t* sums) {
    std::fill(sums, sums + lanes, 0);
    const std::size_t width = padded(weights.inputs);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      for (std::size_t input = 0; input < width; input += lanes) {
        std::int8_t values[lanes] = {};
        if (first + lane < weights.outputs) {
          expand(weights, first + lane, input, plane, values);
        }
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < lanes; ++i) {
          sum += values[i];
        }
        sums[lane] += sum;
        for (std::size_t quad = 0; quad < lanes / 4; ++quad) {
          std::memcpy(panel + (input / 4 + quad) * 4 * lanes + 4 * lane, values + 4 * quad, 4);
        }
      }
    }
  }

  // panel[outputs / 4][32 inputs][4 outputs] of the inputs from `first`; sums a lane.
  static void pack_inputs(const Weights& weights, std::size_t first, std::size_t plane,
                          std::int8_t* panel, std::int32_t* sums) {
    std::fill(sums, sums + lanes, 0);
    for (std::size_t quad = 0; quad < padded(weights.outputs) / 4; ++quad) {
      std::int8_t values[4][lanes] = {};
      for (std::size_t row = 0; row < 4 && 4 * quad + row < weights.outputs; ++row) {
        expand(weights, 4 * quad + row, first, plane, values[row]);
      }
      interleave(values, panel + quad * 4 * lanes, sums);
    }
  }

  static std::uint32_t fixed_signs(const Weights& weights, std::size_t output, std::size_t first) {
    const std::size_t words = padded(weights.inputs) / lanes;
    return random_bits(weights.signs, static_cast<std::uint32_t>(output * words + first / lanes));
  }

 private:
  static void expand_scaled(const Weights& weights, std::size_t output, std::size_t first,
                            std::size_t plane, std::int8_t* values) {
    const std::size_t group = weights.group;
    const std::size_t begin = first / group;
    const std::size_t count = std::min(lanes / group, weights.scales - begin);
    const std::uint8_t* scale = weights.scale + output * weights.scales + begin;
    std::uint8_t magnitude[lanes] = {};
    for (std::size_t j = 0; j < count; ++j) {
      const std::uint8_t part = plane == 0 ? scale[j] >> 1 : scale[j] & 1;
      std::memset(magnitude + j * group, part, group);
    }
    const std::uint32_t signs = fixed_signs(weights, output, first);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const int sign = static_cast<int>((signs >> lane) & 1U) * 2 - 1;
      values[lane] = static_cast<std::int8_t>(sign * magnitude[lane]);
    }
  }
};

}  // namespace edgetrain
