// The three products of a linear layer, a tile at a time. Neither y nor the gradient of the
// weights ever exists whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "panel.hpp"
#include "weights.hpp"

namespace edgetrain {

template <class Isa>
struct LinearKernels {
  using Panels = WeightPanels<Isa>;

  static void expand_signs(const std::uint32_t* signs, std::size_t words, std::size_t count,
                           std::uint8_t* bytes) {
    for (std::size_t word = 0; word < words * count; ++word) {
      for (std::uint32_t lane = 0; lane < lanes; ++lane) {
        bytes[word * lanes + lane] = static_cast<std::uint8_t>((signs[word] >> lane) & 1U);
      }
    }
  }

  static void forward(const Weights& weights, const Input& input, std::size_t count,
                      std::size_t first, const ForwardScratch& scratch, std::int32_t* tile) {
    const std::size_t width = padded(weights.inputs);
    if (weights.mode == WeightMode::bnn && input.signs != nullptr) {
      auto* panel = reinterpret_cast<std::uint32_t*>(scratch.panel);
      Panels::pack_signs(weights, first, panel);
      Isa::xnor(input.signs, width / lanes, width / lanes, count, panel,
                static_cast<std::int32_t>(weights.inputs), false, tile);
      return;
    }
    // Bytes b stand for 2 b - 1 where they hold signs, for b - 128 where they hold data.
    const bool binary = input.signs != nullptr;
    const std::int32_t gain = binary ? 2 : 1;
    const std::int32_t zero = binary ? 1 : data_zero;
    for (std::size_t plane = 0; plane < planes_of(weights.mode); ++plane) {
      const std::int32_t factor = plane_factor(weights.mode, plane);
      std::int32_t* sums = scratch.initial;
      Panels::pack_outputs(weights, first, plane, scratch.panel);
      Panel<Isa>::sum_lanes(scratch.panel, width / 4, -zero * factor, false, sums);
      Isa::dot({input.bytes, width, 4}, count, scratch.panel, width / 4, sums, gain * factor,
               plane > 0, tile, lanes);
    }
  }

  static void backward(const Weights& weights, const Input& input, const Codes& codes,
                       std::size_t count, std::size_t first, const BackwardScratch& scratch,
                       const GradientTarget& input_gradient, const UpdateStep& step) {
    const std::size_t depth = padded(weights.outputs);
    if (input_gradient.rows != nullptr) {
      const bool shifted = codes.shifts != nullptr;
      const std::size_t planes = gradient_planes(weights.mode, shifted);
      for (std::size_t plane = 0; plane < planes; ++plane) {
        const std::int32_t factor = gradient_factor(weights.mode, shifted, plane);
        Panels::pack_inputs(weights, first, plane, codes.shifts, scratch.weight_panel);
        Panel<Isa>::sum_lanes(scratch.weight_panel, depth / 4, -code_zero * factor, false,
                              scratch.initial);
        Isa::dot({codes.rows, depth, 4}, count, scratch.weight_panel, depth / 4, scratch.initial,
                 factor, plane > 0, input_gradient.rows, input_gradient.stride);
      }
    }
    if (!weights.trains()) {
      return;
    }
    pack_examples(weights.inputs, input, count, first, scratch.input_panel);
    Panel<Isa>::sum_lanes(scratch.input_panel, padded(count, 4) / 4, -code_zero, false,
                          scratch.initial);
    for (std::size_t output = 0; output < weights.outputs; output += gradient_rows) {
      const std::size_t rows = std::min(gradient_rows, weights.outputs - output);
      for (std::size_t draw = 0; draw < codes.draws; ++draw) {
        const ByteRows columns = {codes.columns + draw * codes.draw_bytes, 4, 4 * depth};
        Isa::dot(columns.from(output), rows, scratch.input_panel, padded(count, 4) / 4,
                 scratch.initial, 1, draw > 0, scratch.gradient, lanes);
      }
      update(weights, output, rows, first, scratch.gradient, step);
    }
  }

 private:
  // panel[examples / 4][32 inputs][4 examples], zero past the last example.
  static void pack_examples(std::size_t inputs, const Input& input, std::size_t count,
                            std::size_t first, std::int8_t* panel) {
    const std::size_t width = padded(inputs);
    for (std::size_t example = 0; example < count; example += 4) {
      const std::size_t present = std::min<std::size_t>(4, count - example);
      std::int8_t* out = panel + example * lanes;
      if (input.signs != nullptr) {
        pack_signs(input.signs + (example * width + first) / lanes, width / lanes, present, out);
      } else {
        Panel<Isa>::template interleave_present<ByteForm::centred>(
            input.bytes + example * width + first, width, present, data_zero, out);
      }
    }
  }

  static void pack_signs(const std::uint32_t* signs, std::size_t stride, std::size_t present,
                         std::int8_t* out) {
    std::uint32_t words[4] = {};
    std::uint32_t minus_one = 0;
    for (std::size_t row = 0; row < present; ++row) {
      words[row] = signs[row * stride];
      minus_one |= 0xFFU << (8 * row);
    }
    Panel<Isa>::spread_signs(words, minus_one, out);
  }

  static void update(const Weights& weights, std::size_t output, std::size_t rows,
                     std::size_t first, const std::int32_t* gradient, const UpdateStep& step) {
    if (weights.latent == nullptr && weights.mode != WeightMode::fsb) {
      for (std::size_t row = 0; row < rows; ++row) {
        update_word(weights.held, output + row, first, gradient + row * lanes, step);
      }
      return;
    }
    if (weights.mode != WeightMode::fsb) {
      update_latents(weights, output, rows, first, gradient, step);
      return;
    }
    for (std::size_t row = 0; row < rows; ++row) {
      update_scales(weights, output + row, first, gradient + row * lanes, step);
    }
  }

  // latent -= sign(gradient) * step, the fraction of the step rounded at random.
  static void update_latents(const Weights& weights, std::size_t output, std::size_t rows,
                             std::size_t first, const std::int32_t* gradient,
                             const UpdateStep& step) {
    // Copies, because a latent is a byte, and a store of bytes may change whatever is not local.
    const std::size_t stride = weights.inputs;
    const Key key = step.key;
    const std::uint32_t size = step.latent_step;
    const std::size_t valid = std::min(lanes, stride - first);
    std::int8_t* stored = weights.latent + output * stride + first;
    auto index = static_cast<std::uint32_t>((output * padded(stride) + first) / 4);
    const auto next = static_cast<std::uint32_t>(padded(stride) / 4);
    for (std::size_t row = 0; row < rows; ++row, stored += stride, index += next) {
      if (valid == lanes) {
        Isa::update_latents(stored, gradient + row * lanes, key, index, size);
      } else {
        std::int8_t latents[lanes] = {};
        std::memcpy(latents, stored, valid);
        Isa::update_latents(latents, gradient + row * lanes, key, index, size);
        std::memcpy(stored, latents, valid);
      }
    }
  }

  // The gradient of a scale is the sum of its weights' gradients, each times its fixed sign.
  static void update_scales(const Weights& weights, std::size_t output, std::size_t first,
                            const std::int32_t* gradient, const UpdateStep& step) {
    const std::size_t valid = std::min(lanes, weights.inputs - first);
    const std::uint32_t signs = Panels::fixed_signs(weights, output, first);
    std::int32_t signed_gradient[lanes] = {};
    for (std::size_t lane = 0; lane < valid; ++lane) {
      const int sign = static_cast<int>((signs >> lane) & 1U) * 2 - 1;
      signed_gradient[lane] = sign * gradient[lane];
    }
    const std::size_t group = weights.group;
    const std::size_t begin = first / group;
    const std::size_t end = std::min(begin + lanes / group, weights.scales);
    for (std::size_t j = begin; j < end; ++j) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < group; ++i) {
        sum += signed_gradient[(j - begin) * group + i];
      }
      const auto index = static_cast<std::uint32_t>(output * padded(weights.scales) + j);
      update_scale(weights.scale[output * weights.scales + j], sum, index, step);
    }
  }
};

}  // namespace edgetrain
