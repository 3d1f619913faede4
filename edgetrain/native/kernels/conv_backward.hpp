// Both gradients of a convolution for a tile of 32 input channels, and the update of its weights.
// The gradient of the sums is unpooled and decoded one example at a time.
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
struct ConvBackward {
  using Panels = ConvPanels<Isa>;

  static void run(const ConvWeights& weights, const Input& input, const ConvGradient& gradient,
                  std::size_t examples, std::size_t first, const ConvBackwardScratch& scratch,
                  std::int32_t* input_gradient, const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.outputs);
    const std::size_t quads = padded(shape.pixels(), 4) / 4;
    const std::size_t chunk = chunk_examples(examples, shape.pixels());
    if (input_gradient != nullptr) {
      std::memset(scratch.code_image, code_zero, shape.code_height() * shape.code_width() * depth);
    }
    for (std::size_t begin = 0; begin < examples; begin += chunk) {
      const std::size_t count = std::min(chunk, examples - begin);
      for (std::size_t i = 0; i < count; ++i) {
        decode(shape, gradient, begin + i, scratch.code_rows);
        interleave_rows(shape, scratch.code_rows, scratch.columns + i * quads * 4 * depth);
        if (input_gradient != nullptr) {
          place(shape, scratch.code_rows, scratch.code_image);
          multiply_input(weights, first, begin + i == 0, scratch,
                         input_gradient + (begin + i) * shape.height * shape.width * lanes);
        }
      }
      multiply_weights(shape, input, {begin, count}, first, scratch);
    }
    if (weights.mode == WeightMode::fsb) {
      update_scales(weights, first, scratch.gradient, step);
    } else {
      update_latents(weights, first, scratch.gradient, step);
    }
  }

 private:
  struct Range {
    std::size_t begin;
    std::size_t count;
  };

  // rows[pixels][outputs] of bytes: the codes of one example where its maxima were.
  static void decode(const ConvShape& shape, const ConvGradient& gradient, std::size_t example,
                     std::uint8_t* rows) {
    const std::size_t depth = padded(shape.outputs);
    const Pool& pool = gradient.pool;
    if (!pool.present()) {
      const std::uint8_t* codes = gradient.codes + example * shape.pixels() * depth / 2;
      for (std::size_t word = 0; word < shape.pixels() * depth / lanes; ++word) {
        Isa::decode(codes + word * lanes / 2, rows + word * lanes);
      }
      return;
    }
    std::memset(rows, code_zero, shape.pixels() * depth);
    for (std::size_t pixel = 0; pixel < pool.pixels(); ++pixel) {
      const std::size_t row = example * pool.pixels() + pixel;
      const std::size_t top = pixel / pool.width * pool.window_height;
      const std::size_t left = pixel % pool.width * pool.window_width;
      std::uint8_t* corner = rows + (top * shape.out_width + left) * depth;
      for (std::size_t word = 0; word < pool.words; ++word) {
        std::uint8_t bytes[lanes];
        Isa::decode(gradient.codes + (row * depth + word * lanes) / 2, bytes);
        unpool(shape, pool, row * pool.words + word, bytes, corner + word * lanes);
      }
    }
  }

  static void unpool(const ConvShape& shape, const Pool& pool, std::size_t word,
                     const std::uint8_t* bytes, std::uint8_t* corner) {
    const std::size_t depth = padded(shape.outputs);
    for (std::size_t at = 0; at < pool.window_height * pool.window_width; ++at) {
      const std::size_t pixel = at / pool.window_width * shape.out_width + at % pool.window_width;
      if (pool.average()) {
        std::memcpy(corner + pixel * depth, bytes, lanes);
        continue;
      }
      const std::uint32_t low = (at & 1) != 0 ? pool.low[word] : ~pool.low[word];
      const std::uint32_t high = (at & 2) != 0 ? pool.high[word] : ~pool.high[word];
      Panel<Isa>::select_codes(low & high, bytes, corner + pixel * depth);
    }
  }

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

  static void multiply_input(const ConvWeights& weights, std::size_t first, bool first_time,
                             const ConvBackwardScratch& scratch, std::int32_t* target) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.outputs);
    const std::size_t planes = planes_of(weights.mode);
    constexpr std::int32_t zeros[lanes] = {};
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const std::int32_t factor = plane_factor(weights.mode, plane);
      std::int32_t* initial = scratch.initial + plane * lanes;
      if (first_time || planes > 1) {
        Panels::pack_channels(weights, first, plane, scratch.weight_panel);
        Panel<Isa>::sum_lanes(scratch.weight_panel, shape.taps() * depth / 4, -code_zero * factor,
                              false, initial);
      }
      for (std::size_t y = 0; y < shape.height; ++y) {
        for (std::size_t tap_row = 0; tap_row < shape.kernel_height; ++tap_row) {
          const std::uint8_t* row = scratch.code_image + (y + tap_row) * shape.code_width() * depth;
          Isa::dot({row, depth, 4}, shape.width,
                   scratch.weight_panel + tap_row * shape.kernel_width * depth * lanes,
                   shape.kernel_width * depth / 4, tap_row == 0 ? initial : zeros, factor,
                   plane + tap_row > 0, target + y * shape.width * lanes, lanes);
        }
      }
    }
  }

  // gradient[taps][outputs][32] += codes^T x, over the examples of one chunk.
  static void multiply_weights(const ConvShape& shape, const Input& input, Range examples,
                               std::size_t first, const ConvBackwardScratch& scratch) {
    const std::size_t depth = padded(shape.outputs);
    const std::size_t quads = padded(shape.pixels(), 4) / 4;
    std::int32_t initial[lanes];
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      for (std::size_t i = 0; i < examples.count; ++i) {
        pack_pixels(shape, input, examples.begin + i, tap, first,
                    scratch.input_panel + i * quads * 4 * lanes);
      }
      const std::size_t all = examples.count * quads;
      Panel<Isa>::sum_lanes(scratch.input_panel, all, -code_zero, false, initial);
      Isa::dot({scratch.columns, 4, 4 * depth}, shape.outputs, scratch.input_panel, all, initial, 1,
               examples.begin > 0, scratch.gradient + tap * depth * lanes, lanes);
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
        pack_signs(input.signs + first / lanes, padded(shape.channels) / lanes, seen, present,
                   panel);
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

  static void update_latents(const ConvWeights& weights, std::size_t first,
                             const std::int32_t* gradient, const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t taps = shape.taps();
    const std::size_t depth = padded(shape.outputs);
    const std::size_t valid = std::min(lanes, shape.channels - first);
    for (std::size_t output = 0; output < shape.outputs; ++output) {
      for (std::size_t tap = 0; tap < taps; ++tap) {
        const std::size_t row = output * taps + tap;
        std::int8_t* stored = weights.latent + row * shape.channels + first;
        const auto index = static_cast<std::uint32_t>((row * padded(shape.channels) + first) / 4);
        const std::int32_t* demand = gradient + (tap * depth + output) * lanes;
        std::int8_t latents[lanes] = {};
        std::memcpy(latents, stored, valid);
        Isa::update_latents(latents, demand, step.key, index, step.latent_step);
        std::memcpy(stored, latents, valid);
      }
    }
  }

  // The gradient of a scale is the sum of its taps' gradients, each times its fixed sign.
  static void update_scales(const ConvWeights& weights, std::size_t first,
                            const std::int32_t* gradient, const UpdateStep& step) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.outputs);
    const std::size_t valid = std::min(lanes, shape.channels - first);
    for (std::size_t output = 0; output < shape.outputs; ++output) {
      std::int64_t sum[lanes] = {};
      for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
        const std::uint32_t signs = Panels::fixed_signs(weights, output, tap, first);
        const std::int32_t* demand = gradient + (tap * depth + output) * lanes;
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          sum[lane] += ((signs >> lane) & 1U) != 0 ? demand[lane] : -demand[lane];
        }
      }
      for (std::size_t lane = 0; lane < valid; ++lane) {
        const auto index =
            static_cast<std::uint32_t>(output * padded(shape.channels) + first + lane);
        Panel<Isa>::update_scale(weights.scale[output * shape.channels + first + lane], sum[lane],
                                 index, step);
      }
    }
  }
};

}  // namespace edgetrain
