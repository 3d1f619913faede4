// The sums of a convolution, a tile of 32 outputs at a time: products over a padded copy of one
// example, corrected at its borders, then pooled.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "conv_weights.hpp"
#include "edgetrain/kernels.hpp"
#include "panel.hpp"
#include "pooling.hpp"

namespace edgetrain {

template <class Isa>
struct ConvForward {
  using Panels = ConvPanels<Isa>;

  static void run(const ConvWeights& weights, const Input& input, Range examples, std::size_t first,
                  const ConvForwardScratch& scratch, const Pool& pool, std::int32_t* tile) {
    const ConvShape& shape = weights.shape;
    const bool binary = input.signs != nullptr && weights.all_signs();
    if (examples.begin == 0) {
      prepare(weights, input, first, scratch);
    }
    const std::size_t pixels = pool.present() ? pool.pixels() : shape.pixels();
    for (std::size_t index = 0; index < examples.count; ++index) {
      const std::size_t example = examples.begin + index;
      std::int32_t* rows = tile + index * pixels * lanes;
      std::int32_t* sums = pool.present() ? scratch.unpooled : rows;
      if (binary) {
        multiply_bits(shape, input, example, scratch, sums);
      } else {
        multiply_bytes(weights, input, example, scratch, sums);
      }
      if (input.signs != nullptr) {
        correct_borders(shape, scratch.tap_sums, sums);
      }
      if (pool.present()) {
        Pooling<Isa>::run(shape, pool, example, sums, rows);
      }
    }
  }

 private:
  static void prepare(const ConvWeights& weights, const Input& input, std::size_t first,
                      const ConvForwardScratch& scratch) {
    const ConvShape& shape = weights.shape;
    if (input.signs == nullptr) {
      pack_bytes(weights, first, false, scratch);
      return;
    }
    const bool binary = weights.all_signs();
    if (binary) {
      pack_bits(weights, first, scratch);
    } else {
      pack_bytes(weights, first, true, scratch);
    }
    // What lies around the image stays zero: only its inside is written, example by example.
    const std::size_t pixel = padded(shape.channels) / (binary ? 8 : 1);
    std::memset(scratch.image, 0, shape.image_height() * shape.image_width() * pixel);
  }

  static void pack_bits(const ConvWeights& weights, std::size_t first,
                        const ConvForwardScratch& scratch) {
    const ConvShape& shape = weights.shape;
    auto* panel = reinterpret_cast<std::uint32_t*>(scratch.panel);
    Panels::pack_signs(weights, first, panel);
    // The sum of a tap is what its product with 32 ones would be, less what one with nothing is.
    const std::size_t words = shape.channels / lanes;
    const std::uint32_t ones[1] = {~0U};
    for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
      for (std::size_t word = 0; word < words; ++word) {
        Isa::xnor(ones, 1, 1, 1, panel + (tap * words + word) * lanes,
                  static_cast<std::int32_t>(lanes), word > 0, scratch.tap_sums + tap * lanes);
      }
    }
  }

  static void pack_bytes(const ConvWeights& weights, std::size_t first, bool signs,
                         const ConvForwardScratch& scratch) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.channels);
    const std::size_t panel_bytes = shape.taps() * depth * lanes;
    // Bytes b stand for 2 b - 1 where they hold signs, for b - 128 where they hold data.
    const std::int32_t zero = signs ? 1 : data_zero;
    for (std::size_t plane = 0; plane < planes_of(weights.mode); ++plane) {
      const std::int32_t factor = plane_factor(weights.mode, plane);
      std::int8_t* panel = scratch.panel + plane * panel_bytes;
      Panels::pack_outputs(weights, first, plane, panel);
      Panel<Isa>::sum_lanes(panel, shape.taps() * depth / 4, -zero * factor, false,
                            scratch.initial + plane * lanes);
      for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
        Panel<Isa>::sum_lanes(panel + tap * depth * lanes, depth / 4, factor, plane > 0,
                              scratch.tap_sums + tap * lanes);
      }
    }
  }

  static void multiply_bits(const ConvShape& shape, const Input& input, std::size_t example,
                            const ConvForwardScratch& scratch, std::int32_t* sums) {
    const std::size_t words = shape.channels / lanes;
    const auto* panel = reinterpret_cast<const std::uint32_t*>(scratch.panel);
    auto* image = reinterpret_cast<std::uint32_t*>(scratch.image);
    const std::size_t width = shape.image_width();
    const std::size_t pixel = tiles_of(shape.all_channels);
    for_each_inside_row(shape, [&](std::size_t row, std::size_t y, std::size_t columns) {
      std::uint32_t* to = image + (row * width + shape.pad_left) * words;
      const std::uint32_t* from = input.signs + (example * shape.height + y) * shape.width * pixel;
      // Where all channels are seen, pixels lie side by side.
      const std::size_t runs = pixel == words ? 1 : columns;
      for (std::size_t run = 0; run < runs; ++run) {
        std::memcpy(to + run * words, from + run * pixel,
                    columns / runs * words * sizeof(std::uint32_t));
      }
    });
    const auto inputs = static_cast<std::int32_t>(shape.kernel_width * shape.channels);
    for (std::size_t row = 0; row < shape.out_height; ++row) {
      for (std::size_t tap_row = 0; tap_row < shape.kernel_height; ++tap_row) {
        Isa::xnor(image + (row * shape.stride + tap_row) * width * words, shape.stride * words,
                  shape.kernel_width * words, shape.out_width,
                  panel + tap_row * shape.kernel_width * words * lanes, inputs, tap_row > 0,
                  sums + row * shape.out_width * lanes);
      }
    }
  }

  static void multiply_bytes(const ConvWeights& weights, const Input& input, std::size_t example,
                             const ConvForwardScratch& scratch, std::int32_t* sums) {
    const ConvShape& shape = weights.shape;
    const std::size_t depth = padded(shape.channels);
    const std::size_t width = shape.image_width();
    const std::uint8_t* image = scratch.image;
    if (input.patches != nullptr) {
      gather_patches(*input.patches, example, scratch.image);
    } else if (input.signs == nullptr) {
      image = input.bytes + example * shape.height * shape.width * depth;
    } else {
      const std::size_t pixel = tiles_of(shape.all_channels);
      expand_image(shape, input.signs + example * shape.height * shape.width * pixel,
                   scratch.image);
    }
    constexpr std::int32_t zeros[lanes] = {};
    const std::int32_t gain = input.signs == nullptr ? 1 : 2;
    for (std::size_t plane = 0; plane < planes_of(weights.mode); ++plane) {
      const std::int8_t* panel = scratch.panel + plane * shape.taps() * depth * lanes;
      const std::int32_t multiplier = gain * plane_factor(weights.mode, plane);
      for (std::size_t row = 0; row < shape.out_height; ++row) {
        for (std::size_t tap_row = 0; tap_row < shape.kernel_height; ++tap_row) {
          const std::uint8_t* begin = image + (row * shape.stride + tap_row) * width * depth;
          Isa::dot({begin, shape.stride * depth, 4}, shape.out_width,
                   panel + tap_row * shape.kernel_width * depth * lanes,
                   shape.kernel_width * depth / 4,
                   tap_row == 0 ? scratch.initial + plane * lanes : zeros, multiplier,
                   plane + tap_row > 0, sums + row * shape.out_width * lanes, lanes);
        }
      }
    }
  }

  static void expand_image(const ConvShape& shape, const std::uint32_t* signs,
                           std::uint8_t* image) {
    const std::size_t words = shape.channels / lanes;
    const std::size_t pixel = tiles_of(shape.all_channels);
    for_each_inside_row(shape, [&](std::size_t row, std::size_t y, std::size_t columns) {
      std::uint8_t* bytes = image + (row * shape.image_width() + shape.pad_left) * shape.channels;
      const std::uint32_t* from = signs + y * shape.width * pixel;
      for (std::size_t word = 0; word < columns * words; ++word) {
        const std::uint32_t bits = from[word / words * pixel + word % words];
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          bytes[word * lanes + lane] = static_cast<std::uint8_t>((bits >> lane) & 1U);
        }
      }
    });
  }

  // Calls visit(row of the padded image, row of the example, columns that the kernel reaches).
  template <class Visit>
  static void for_each_inside_row(const ConvShape& shape, const Visit& visit) {
    for (std::size_t y = 0; y < shape.reached_rows(); ++y) {
      visit(shape.pad_top + y, y, shape.reached_columns());
    }
  }

  // Outside of the image zeros were read as -1: what they took away is given back.
  static void correct_borders(const ConvShape& shape, const std::int32_t* tap_sums,
                              std::int32_t* sums) {
    const auto outside = [](std::size_t position, std::size_t pad, std::size_t size) {
      return position < pad || position - pad >= size;
    };
    for (std::size_t row = 0; row < shape.out_height; ++row) {
      const std::size_t top = row * shape.stride;
      const bool row_inside =
          top >= shape.pad_top && top + shape.kernel_height <= shape.height + shape.pad_top;
      for (std::size_t column = 0; column < shape.out_width; ++column) {
        const std::size_t left = column * shape.stride;
        if (row_inside && left >= shape.pad_left &&
            left + shape.kernel_width <= shape.width + shape.pad_left) {
          continue;
        }
        std::int32_t* corrected = sums + (row * shape.out_width + column) * lanes;
        for (std::size_t tap = 0; tap < shape.taps(); ++tap) {
          if (outside(top + tap / shape.kernel_width, shape.pad_top, shape.height) ||
              outside(left + tap % shape.kernel_width, shape.pad_left, shape.width)) {
            for (std::size_t lane = 0; lane < lanes; ++lane) {
              corrected[lane] += tap_sums[tap * lanes + lane];
            }
          }
        }
      }
    }
  }
};

}  // namespace edgetrain
