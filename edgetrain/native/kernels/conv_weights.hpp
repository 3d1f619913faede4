// Weights of a convolution as its products need them, a tap at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

template <class Isa>
struct ConvPanels {
  static std::uint32_t fixed_signs(const ConvWeights& weights, std::size_t output, std::size_t tap,
                                   std::size_t first) {
    const std::size_t words = padded(weights.shape.channels) / lanes;
    return random_bits(weights.signs, static_cast<std::uint32_t>(weights.row(output, tap) * words +
                                                                 first / lanes));
  }

  // The signs of one output and tap for the 32 channels from `first`, all of which exist.
  static std::uint32_t signs(const ConvWeights& weights, std::size_t output, std::size_t tap,
                             std::size_t first) {
    const std::size_t row = weights.row(output, tap);
    return weights.latent == nullptr
               ? sign_word(weights.held, row, first)
               : Isa::sign_word(weights.latent + row * weights.shape.channels + first);
  }

  // values[32] = the weights of one output and tap for the channels from `first`.
  [[gnu::noinline]] static void expand(const ConvWeights& weights, std::size_t output,
                                       std::size_t tap, std::size_t first, std::size_t plane,
                                       std::int8_t* values) {
    const ConvShape& shape = weights.shape;
    const std::size_t valid = std::min(lanes, shape.channels - first);
    if (weights.groups > 1) {
      return expand_grouped(weights, output, tap, first, plane, values);
    }
    std::memset(values, 0, lanes);
    if (weights.mode == WeightMode::fsb) {
      const std::uint8_t* scale =
          weights.scale + (weights.first_output + output) * shape.channels + first;
      const std::uint32_t signs = fixed_signs(weights, output, tap, first);
      for (std::size_t lane = 0; lane < valid; ++lane) {
        const int sign = static_cast<int>((signs >> lane) & 1U) * 2 - 1;
        const int part = plane == 0 ? scale[lane] >> 1 : scale[lane] & 1;
        values[lane] = static_cast<std::int8_t>(sign * part);
      }
      return;
    }
    if (weights.latent == nullptr) {
      std::int8_t signs[lanes];
      Panel<Isa>::unpack(sign_word(weights.held, weights.row(output, tap), first), signs);
      std::memcpy(values, signs, valid);
      return;
    }
    const std::int8_t* latent = weights.latent + weights.row(output, tap) * shape.channels + first;
    if (weights.mode == WeightMode::int8) {
      std::memcpy(values, latent, valid);
      return;
    }
    for (std::size_t lane = 0; lane < valid; ++lane) {
      values[lane] = static_cast<std::int8_t>((latent[lane] >> 7) | 1);
    }
  }

  // The same times 2^shift. Compiled for size: few plans ask for it.
  [[gnu::noinline, gnu::cold]] static void expand_shifted(const ConvWeights& weights,
                                                          std::size_t output, std::size_t tap,
                                                          std::size_t first, std::size_t plane,
                                                          std::uint32_t shift,
                                                          std::int8_t* values) {
    std::int8_t planes[2][lanes];
    for (std::size_t part = 0; part < planes_of(weights.mode); ++part) {
      expand(weights, output, tap, first, part, planes[part]);
    }
    shift_weights(weights.mode, plane, shift, planes, values);
  }

  // panel[taps][channels / 4][32 outputs][4 channels] of the outputs from `first`.
  static void pack_outputs(const ConvWeights& weights, std::size_t first, std::size_t plane,
                           std::int8_t* panel) {
    const ConvShape& shape = weights.shape;
    const std::size_t present = std::min(lanes, shape.outputs - first);
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      for (std::size_t channel = 0; channel < padded(shape.channels); channel += lanes) {
        std::int8_t values[lanes * lanes] = {};
        for (std::size_t lane = 0; lane < present; ++lane) {
          expand(weights, first + lane, tap, channel, plane, values + lane * lanes);
        }
        Isa::template transpose<ByteForm::plain>(values, lanes, panel);
        panel += lanes * lanes;
      }
    }
  }

  // panel[taps, last first][outputs / 4][32 channels][4 outputs] of the channels from `first`; an
  // output's weights are times 2^shifts[output] where there are shifts.
  static void pack_channels(const ConvWeights& weights, std::size_t first, std::size_t plane,
                            const std::uint8_t* shifts, std::int8_t* panel) {
    const ConvShape& shape = weights.shape;
    const std::size_t stride = shape.taps() * shape.channels;
    const bool binary = weights.mode == WeightMode::bnn && weights.latent != nullptr;
    const bool direct =
        binary && first + lanes <= shape.channels && shifts == nullptr && weights.groups == 1;
    for (std::size_t tap = shape.taps(); tap-- > 0;) {
      for (std::size_t output = 0; output < padded(shape.outputs); output += 4) {
        if (direct && output + 4 <= shape.outputs) {
          const std::int8_t* latents =
              weights.latent + weights.row(output, tap) * shape.channels + first;
          Isa::template interleave<ByteForm::signs>(latents, stride, panel);
        } else {
          std::int8_t values[4][lanes] = {};
          for (std::size_t row = 0; row < 4 && output + row < shape.outputs; ++row) {
            if (shifts == nullptr) {
              expand(weights, output + row, tap, first, plane, values[row]);
            } else {
              expand_shifted(weights, output + row, tap, first, plane, shifts[output + row],
                             values[row]);
            }
          }
          Isa::template interleave<ByteForm::plain>(values, lanes, panel);
        }
        panel += 4 * lanes;
      }
    }
  }

  // panel[taps][words][32] = packed signs of the outputs from `first`.
  static void pack_signs(const ConvWeights& weights, std::size_t first, std::uint32_t* panel) {
    const ConvShape& shape = weights.shape;
    const std::size_t words = shape.taps() * shape.channels / lanes;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const bool exists = first + lane < shape.outputs;
      for (std::size_t word = 0; word < words; ++word) {
        const std::size_t tap = word * lanes / shape.channels;
        panel[word * lanes + lane] =
            exists ? signs(weights, first + lane, tap, word * lanes - tap * shape.channels) : 0;
      }
    }
  }
};

}  // namespace edgetrain
