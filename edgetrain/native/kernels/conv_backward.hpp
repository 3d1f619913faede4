// Both gradients of a convolution for a tile of 32 input channels, as products of bytes. The
// gradient of the sums is unpooled and decoded one example at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "conv_codes.hpp"
#include "conv_update.hpp"
#include "conv_weights.hpp"
#include "edgetrain/kernels.hpp"
#include "panel.hpp"

namespace edgetrain {

template <class Isa>
struct ConvBackward {
  using Panels = ConvPanels<Isa>;
  using Codes = ConvCodes<Isa>;

  // The gradient[rows][32] of the input and the update of the weights; null leaves either out.
  static void run(const ConvWeights& weights, const Input& input, const ConvGradient& gradient,
                  Range examples, std::size_t first, const ConvBackwardScratch& scratch,
                  std::int32_t* input_gradient, const UpdateStep* step) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.outputs);
    const std::size_t quads = padded(shape.pixels(), 4) / 4;
    const std::size_t draws = step != nullptr ? gradient.draws : 1;
    const std::size_t chunk = chunk_examples(examples.count, shape.pixels());
    if (input_gradient != nullptr && examples.begin == 0) {
      std::memset(scratch.code_image, code_zero, shape.code_height() * shape.code_width() * depth);
      pack_panels(weights, gradient.shifts, first, scratch);
    }
    for (std::size_t begin = 0; begin < examples.count; begin += chunk) {
      const Range part = {examples.begin + begin, std::min(chunk, examples.count - begin)};
      for (std::size_t draw = 0; draw < draws; ++draw) {
        const ConvGradient drawn = gradient.of_draw(draw);
        for (std::size_t i = 0; i < part.count; ++i) {
          Codes::decode(shape, drawn, part.begin + i, depth, scratch.code_rows);
          if (step != nullptr) {
            interleave_rows(shape, scratch.code_rows, scratch.columns + i * quads * 4 * depth);
          }
          if (input_gradient != nullptr && draw == 0) {
            place(shape, scratch.code_rows, scratch.code_image);
            multiply_input(weights, gradient.shifts != nullptr, scratch,
                           input_gradient + (begin + i) * shape.height * shape.width * lanes);
          }
        }
        if (step != nullptr) {
          multiply_weights(shape, input, part, first, begin + draw > 0, scratch);
        }
      }
    }
    if (step != nullptr) {
      ConvUpdate<Isa>::run(weights, {0, shape.outputs}, first, scratch.gradient, *step);
    }
  }

 private:
  // columns[pixels / 4][outputs][4 pixels], zero past the last pixel.
  static void interleave_rows(const ConvShape& shape, const std::uint8_t* rows,
                              std::uint8_t* columns) {
    const std::size_t depth = padded(shape.outputs);
    for (std::size_t pixel = 0; pixel < shape.pixels(); pixel += 4) {
      const std::size_t present = std::min<std::size_t>(4, shape.pixels() - pixel);
      for (std::size_t output = 0; output < depth; output += lanes) {
        const std::uint8_t* from = rows + pixel * depth + output;
        auto* to = reinterpret_cast<std::int8_t*>(columns + pixel * depth + 4 * output);
        Panel<Isa>::template interleave_present<ByteForm::plain>(from, depth, present, code_zero,
                                                                 to);
      }
    }
  }

  // The image over which the mirrored kernel passes: codes `stride` apart, inside a border.
  static void place(const ConvShape& shape, const std::uint8_t* rows, std::uint8_t* image) {
    const std::size_t depth = padded(shape.outputs);
    const std::size_t top = shape.kernel_height - 1 - shape.pad_top;
    const std::size_t left = shape.kernel_width - 1 - shape.pad_left;
    for (std::size_t row = 0; row < shape.out_height; ++row) {
      std::uint8_t* to = image + ((top + row * shape.stride) * shape.code_width() + left) * depth;
      for (std::size_t column = 0; column < shape.out_width; ++column) {
        std::memcpy(to + column * shape.stride * depth,
                    rows + (row * shape.out_width + column) * depth, depth);
      }
    }
  }

  static std::size_t panel_bytes(const ConvShape& shape) {
    return shape.taps() * padded(shape.outputs) * lanes;
  }

  static void pack_panels(const ConvWeights& weights, const std::uint8_t* shifts, std::size_t first,
                          const ConvBackwardScratch& scratch) {
    const ConvShape& shape = weights.shape;
    const bool shifted = shifts != nullptr;
    for (std::size_t plane = 0; plane < gradient_planes(weights.mode, shifted); ++plane) {
      std::int8_t* panel = scratch.weight_panel + plane * panel_bytes(shape);
      Panels::pack_channels(weights, first, plane, shifts, panel);
      Panel<Isa>::sum_lanes(panel, shape.taps() * padded(shape.outputs) / 4,
                            -code_zero * gradient_factor(weights.mode, shifted, plane), false,
                            scratch.initial + plane * lanes);
    }
  }

  static void multiply_input(const ConvWeights& weights, bool shifted,
                             const ConvBackwardScratch& scratch, std::int32_t* target) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.outputs);
    constexpr std::int32_t zeros[lanes] = {};
    for (std::size_t plane = 0; plane < gradient_planes(weights.mode, shifted); ++plane) {
      const std::int8_t* panel = scratch.weight_panel + plane * panel_bytes(shape);
      const std::int32_t* initial = scratch.initial + plane * lanes;
      for (std::size_t y = 0; y < shape.height; ++y) {
        for (std::size_t tap_row = 0; tap_row < shape.kernel_height; ++tap_row) {
          const std::uint8_t* row = scratch.code_image + (y + tap_row) * shape.code_width() * depth;
          Isa::dot({row, depth, 4}, shape.width,
                   panel + tap_row * shape.kernel_width * depth * lanes,
                   shape.kernel_width * depth / 4, tap_row == 0 ? initial : zeros,
                   gradient_factor(weights.mode, shifted, plane), plane + tap_row > 0,
                   target + y * shape.width * lanes, lanes);
        }
      }
    }
  }

  // gradient[taps][outputs][32] = codes^T x (+ gradient), over the examples of one chunk.
  static void multiply_weights(const ConvShape& shape, const Input& input, Range examples,
                               std::size_t first, bool accumulate,
                               const ConvBackwardScratch& scratch) {
    const std::size_t depth = padded(shape.outputs);
    const std::size_t quads = padded(shape.pixels(), 4) / 4;
    std::int32_t initial[lanes];
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      for (std::size_t i = 0; i < examples.count; ++i) {
        std::int8_t* panel = scratch.input_panel + i * quads * 4 * lanes;
        if (input.patches != nullptr) {
          gather_patches(*input.patches, examples.begin + i, scratch.patches);
          pack_pixels(shape, {nullptr, scratch.patches}, 0, tap, first, panel);
        } else {
          pack_pixels(shape, input, examples.begin + i, tap, first, panel);
        }
      }
      const std::size_t all = examples.count * quads;
      Panel<Isa>::sum_lanes(scratch.input_panel, all, -code_zero, false, initial);
      Isa::dot({scratch.columns, 4, 4 * depth}, shape.outputs, scratch.input_panel, all, initial, 1,
               accumulate, scratch.gradient + tap * depth * lanes, lanes);
    }
  }

  // panel[pixels / 4][32 channels][4 pixels]: what one tap saw of one example.
  static void pack_pixels(const ConvShape& shape, const Input& input, std::size_t example,
                          std::size_t tap, std::size_t first, std::int8_t* panel) {
    const std::size_t tap_row = tap / shape.kernel_width;
    const std::size_t tap_column = tap % shape.kernel_width;
    const std::size_t base = example * shape.height * shape.width;
    std::size_t row = 0;
    std::size_t column = 0;
    for (std::size_t pixel = 0; pixel < shape.pixels(); pixel += 4, panel += 4 * lanes) {
      std::size_t seen[4] = {};
      std::uint32_t present = 0;
      for (std::uint32_t i = 0; i < 4 && pixel + i < shape.pixels(); ++i) {
        // Unsigned, so that what lies before the first row or column is far past the last.
        const std::size_t y = row * shape.stride + tap_row - shape.pad_top;
        const std::size_t x = column * shape.stride + tap_column - shape.pad_left;
        if (y < shape.height && x < shape.width) {
          seen[i] = base + y * shape.width + x;
          present |= 1U << i;
        }
        if (++column == shape.out_width) {
          column = 0;
          ++row;
        }
      }
      if (input.signs != nullptr) {
        pack_signs(input.signs + first / lanes, tiles_of(shape.all_channels), seen, present, panel);
      } else {
        pack_bytes(input.bytes + first, padded(shape.channels), seen, present, panel);
      }
    }
  }

  static void pack_signs(const std::uint32_t* signs, std::size_t words, const std::size_t* seen,
                         std::uint32_t present, std::int8_t* panel) {
    std::uint32_t word[4] = {};
    std::uint32_t minus_one = 0;
    for (std::uint32_t i = 0; i < 4; ++i) {
      if ((present >> i & 1U) != 0) {
        word[i] = signs[seen[i] * words];
        minus_one |= 0xFFU << (8 * i);
      }
    }
    Panel<Isa>::spread_signs(word, minus_one, panel);
  }

  static void pack_bytes(const std::uint8_t* bytes, std::size_t stride, const std::size_t* seen,
                         std::uint32_t present, std::int8_t* panel) {
    std::uint8_t values[4][lanes];
    std::memset(values, data_zero, sizeof values);
    for (std::uint32_t i = 0; i < 4; ++i) {
      if ((present >> i & 1U) != 0) {
        std::memcpy(values[i], bytes + seen[i] * stride, lanes);
      }
    }
    Isa::template interleave<ByteForm::centred>(values, lanes, panel);
  }
};

}  // namespace edgetrain
