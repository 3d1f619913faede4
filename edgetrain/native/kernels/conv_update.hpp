// Moves the weights of a convolution against their gradient.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "conv_weights.hpp"
#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

template <class Isa>
struct ConvUpdate {
  using Panels = ConvPanels<Isa>;

  // gradient[taps][padded outputs][32]: that of some outputs and the 32 channels from `first`.
  static void run(const ConvWeights& weights, Range outputs, std::size_t first,
                  const std::int32_t* gradient, const UpdateStep& step) {
    if (weights.groups > 1) {
      update_grouped(weights, outputs, first, gradient, step);
    } else if (weights.mode == WeightMode::fsb) {
      update_scales(weights, outputs, first, gradient, step);
    } else {
      update_latents(weights, outputs, first, gradient, step);
    }
  }

 private:
  static void update_latents(const ConvWeights& weights, Range outputs, std::size_t first,
                             const std::int32_t* gradient, const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t taps = shape.taps();
    const std::size_t depth = padded(outputs.count);
    const std::size_t valid = std::min(lanes, shape.channels - first);
    for (std::size_t i = 0; i < outputs.count; ++i) {
      const std::size_t output = outputs.begin + i;
      for (std::size_t tap = 0; tap < taps; ++tap) {
        const std::size_t row = weights.row(output, tap);
        if (weights.latent == nullptr) {
          update_word(weights.held, row, first, gradient + (tap * depth + i) * lanes, step);
          continue;
        }
        std::int8_t* stored = weights.latent + row * shape.channels + first;
        const auto index = static_cast<std::uint32_t>((row * padded(shape.channels) + first) / 4);
        const std::int32_t* demand = gradient + (tap * depth + i) * lanes;
        std::int8_t latents[lanes] = {};
        std::memcpy(latents, stored, valid);
        Isa::update_latents(latents, demand, step.key, index, step.latent_step);
        std::memcpy(stored, latents, valid);
      }
    }
  }

  // The gradient of a scale is the sum of its taps' gradients, each times its fixed sign.
  static void update_scales(const ConvWeights& weights, Range outputs, std::size_t first,
                            const std::int32_t* gradient, const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(outputs.count);
    const std::size_t valid = std::min(lanes, shape.channels - first);
    for (std::size_t i = 0; i < outputs.count; ++i) {
      const std::size_t output = outputs.begin + i;
      std::int64_t sum[lanes] = {};
      for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
        const std::uint32_t signs = Panels::fixed_signs(weights, output, tap, first);
        const std::int32_t* demand = gradient + (tap * depth + i) * lanes;
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          sum[lane] += ((signs >> lane) & 1U) != 0 ? demand[lane] : -demand[lane];
        }
      }
      const std::size_t row = weights.first_output + output;
      for (std::size_t lane = 0; lane < valid; ++lane) {
        const auto index = static_cast<std::uint32_t>(row * padded(shape.channels) + first + lane);
        update_scale(weights.scale[row * shape.channels + first + lane], sum[lane], index, step);
      }
    }
  }
};

}  // namespace edgetrain
