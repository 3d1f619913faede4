// Weights as the products need them: signs or int8 values, laid out in panels of 32 lanes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

// A copy whose usual length the compiler knows.
static inline void copy(const std::int8_t* from, std::size_t count, std::int8_t* to) {
  if (count == lanes) {
    std::memcpy(to, from, lanes);
  } else {
    std::memcpy(to, from, count);
  }
}

template <class Isa>
struct WeightPanels {
  // values[32] = the weights of one output for the inputs from `first`, zero past the last.
  [[gnu::noinline]] static void expand(const Weights& weights, std::size_t output,
                                       std::size_t first, std::size_t plane, std::int8_t* values) {
    const std::size_t valid = std::min(lanes, weights.inputs - first);
    if (weights.mode == WeightMode::fsb) {
      expand_scaled(weights, output, first, plane, values);
    } else if (weights.latent == nullptr) {
      Panel<Isa>::unpack(sign_word(weights.held, output, first), values);
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

  // The same times 2^shift. Compiled for size: few plans ask for it.
  [[gnu::noinline, gnu::cold]] static void expand_shifted(const Weights& weights,
                                                          std::size_t output, std::size_t first,
                                                          std::size_t plane, std::uint32_t shift,
                                                          std::int8_t* values) {
    std::int8_t planes[2][lanes];
    for (std::size_t part = 0; part < planes_of(weights.mode); ++part) {
      expand(weights, output, first, part, planes[part]);
    }
    shift_weights(weights.mode, plane, shift, planes, values);
  }

  // panel[words][32] = packed signs of the outputs from `first`; zero bits past the last input.
  static void pack_signs(const Weights& weights, std::size_t first, std::uint32_t* panel) {
    const std::size_t words = padded(weights.inputs) / lanes;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const bool exists = first + lane < weights.outputs;
      if (exists && weights.latent == nullptr) {
        for (std::size_t word = 0; word < words; ++word) {
          panel[word * lanes + lane] = sign_word(weights.held, first + lane, word * lanes);
        }
        continue;
      }
      const std::int8_t* row = exists ? weights.latent + (first + lane) * weights.inputs : nullptr;
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

  // panel[inputs / 4][32 outputs][4 inputs] of the outputs from `first`.
  static void pack_outputs(const Weights& weights, std::size_t first, std::size_t plane,
                           std::int8_t* panel) {
    for (std::size_t input = 0; input < padded(weights.inputs); input += lanes) {
      std::int8_t* out = panel + input * lanes;
      const bool whole = first + lanes <= weights.outputs && input + lanes <= weights.inputs;
      if (whole && weights.latent != nullptr) {
        const std::int8_t* latents = weights.latent + first * weights.inputs + input;
        if (weights.mode == WeightMode::bnn) {
          Isa::template transpose<ByteForm::signs>(latents, weights.inputs, out);
        } else {
          Isa::template transpose<ByteForm::plain>(latents, weights.inputs, out);
        }
        continue;
      }
      std::int8_t values[lanes * lanes] = {};
      for (std::size_t lane = 0; lane < std::min(lanes, weights.outputs - first); ++lane) {
        expand(weights, first + lane, input, plane, values + lane * lanes);
      }
      Isa::template transpose<ByteForm::plain>(values, lanes, out);
    }
  }

  // panel[outputs / 4][32 inputs][4 outputs] of the inputs from `first`; an output's weights are
  // times 2^shifts[output] where there are shifts.
  static void pack_inputs(const Weights& weights, std::size_t first, std::size_t plane,
                          const std::uint8_t* shifts, std::int8_t* panel) {
    const bool whole =
        first + lanes <= weights.inputs && weights.latent != nullptr && shifts == nullptr;
    for (std::size_t output = 0; output < padded(weights.outputs); output += 4) {
      std::int8_t* out = panel + output * lanes;
      if (whole && output + 4 <= weights.outputs) {
        const std::int8_t* latents = weights.latent + output * weights.inputs + first;
        if (weights.mode == WeightMode::bnn) {
          Isa::template interleave<ByteForm::signs>(latents, weights.inputs, out);
        } else {
          Isa::template interleave<ByteForm::plain>(latents, weights.inputs, out);
        }
        continue;
      }
      std::int8_t values[4][lanes] = {};
      for (std::size_t row = 0; row < 4 && output + row < weights.outputs; ++row) {
        if (shifts == nullptr) {
          expand(weights, output + row, first, plane, values[row]);
        } else {
          expand_shifted(weights, output + row, first, plane, shifts[output + row], values[row]);
        }
      }
      Isa::template interleave<ByteForm::plain>(values, lanes, out);
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
